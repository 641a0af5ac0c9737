# The commands of this repository. `make` lists them.
# Works with GNU Make 3.81 (macOS) and later.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Where the environment is, the Python that makes it, and INSTALL=no to use VENV as it stands
# (a conda environment: make book INSTALL=no VENV="$CONDA_PREFIX").
VENV ?= .venv
PYTHON ?= python3
INSTALL ?= yes

BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.zsl-book-installed
# nbgrader does not fit beside the book's versions, and has an environment of its own.
NBGRADER ?= $(VENV)/nbgrader
GRADER := $(NBGRADER)/.zsl-book-installed
ifeq ($(INSTALL),no)
SETUP :=
else
SETUP := $(STAMP)
UNIT_SETUP = $(GRADER)
SITE_SETUP := $(VENV)/.zsl-book-site-installed
FUZZ_SETUP := $(VENV)/.zsl-book-fuzz-installed
endif

# The kernel is the environment's own, whatever kernels the user or the machine has.
export JUPYTER_PATH := $(abspath $(VENV))/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Threads that wait must not spin: beside any other program, small networks become twenty times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# Nor those of OpenBLAS: NumPy and SciPy have a copy each, and on two cores their threads get in each other's way.
export OPENBLAS_THREAD_TIMEOUT ?= 10
# glibc hands large blocks back at once and takes them anew at each step: with photographs, a quarter of the time.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
# On two cores, two notebooks (or files of tests) side by side with a thread each are done in half the time that one after
# the other takes with two threads each; and sums do not depend on how many cores there are. The
# largest takes 2.3 GB, most less than one.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile
book class refresh unit nbval: export OMP_NUM_THREADS ?= 1
# For the test that grades.
export ZSL_NBGRADER := $(abspath $(NBGRADER))

SOURCES := $(sort $(wildcard notebooks/[0-9]*.py))
PAIRS := $(SOURCES:.py=.ipynb)
RUNS := $(SOURCES:notebooks/%.py=_build/notebooks/%.ipynb)
CLASS_RUNS := $(SOURCES:notebooks/%.py=class-%)
GPU_RUNS := $(SOURCES:notebooks/%.py=gpu-%)
# What a notebook's run depends on. Folders count too, where a removed file must be noticed.
LIBRARY := $(shell find zsl_lib -type f ! -name '*.pyc' ! -name '.*' 2>/dev/null)
RECORDS := $(shell find results 2>/dev/null)
PAGES := $(shell find book/. _static/. 2>/dev/null)
PARAMETERS := notebooks/params/paper.yaml

.PHONY: help install book site test check lint pairs unit fuzz nbval check-site pdf slides lab refresh constraints \
	assignment grade class gpu bench clean $(CLASS_RUNS) $(GPU_RUNS)

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environment --------------------------------------------------------------------------------------

EXTRAS := images,formats,sweep,scale,notebooks,book,test
pip_install = if command -v uv >/dev/null; then \
	  UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" uv pip install --python "$(PY)" -c constraints.txt -e '.[$(1)]'; \
	else "$(PY)" -m pip install --quiet -c constraints.txt -e '.[$(1)]'; fi

install: $(SETUP) ## set up .venv (uv where it is on PATH, else pip)

$(STAMP): pyproject.toml constraints.txt
	@python="$(PY)"; test -x "$$python" || python="$(PYTHON)"; \
	command -v "$$python" >/dev/null || { \
	  echo "make: $$python not found; name a Python >= 3.11, as in: make PYTHON=python3.12 book" >&2; exit 1; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$python is $$("$$python" -V 2>&1); expected Python >= 3.11:" \
	    "remove $(VENV) if it is that one, then: make PYTHON=python3.12 book" >&2; exit 1; }
	@echo "Setting up $(VENV): this takes some minutes the first time ..."
	@set -e; if command -v uv >/dev/null; then \
	  test -x "$(PY)" || uv venv --quiet --python "$(PYTHON)" "$(VENV)"; \
	else \
	  test -x "$(PY)" || "$(PYTHON)" -m venv "$(VENV)"; \
	fi; \
	$(call pip_install,$(EXTRAS))
	@touch $@

# For a browser that is there; without these packages check-site leaves the browser's part out, and says so.
$(VENV)/.zsl-book-site-installed: $(STAMP)
	@if PYTHONPATH=.ci "$(PY)" -c 'import sys, site_checks.browser as b; sys.exit(not b.find_browser())'; then \
	  ($(call pip_install,site)) && touch $@ || true; \
	fi

$(VENV)/.zsl-book-fuzz-installed: $(STAMP)
	@$(call pip_install,fuzz)
	@touch $@

$(GRADER): .ci/nbgrader.txt | $(SETUP)
	@echo "Setting up $(NBGRADER): about a minute the first time ..."
	@set -e; if command -v uv >/dev/null; then \
	  test -x "$(NBGRADER)/bin/python" || uv venv --quiet --python "$(PY)" "$(NBGRADER)"; \
	  UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" uv pip install --quiet --python "$(NBGRADER)/bin/python" -c $< nbgrader; \
	else \
	  test -x "$(NBGRADER)/bin/python" || "$(PY)" -m venv "$(NBGRADER)"; \
	  "$(NBGRADER)/bin/python" -m pip install --quiet -c $< nbgrader; \
	fi
	@touch $@

constraints: ## remake constraints.txt (needs uv; UPGRADE=1 for newer versions)
	@$(PYTHON) .ci/constraints.py $(if $(UPGRADE),--upgrade)

# --- book ---------------------------------------------------------------------------------------------

SITE := _build/html/index.html
book: $(SETUP) ## execute the notebooks and build the site in _build/html
	@$(MAKE) --no-print-directory -j$(JOBS) site
	@test -f $(SITE) || { echo "make: $(SITE) not found; the build made no book" >&2; exit 1; }
	@echo "The book is ready: $(SITE)"

site: $(SITE)
	@:

_build/notebooks/%.ipynb: notebooks/%.py $(LIBRARY) .ci/notebooks.py $(SETUP)
	@$(PY) .ci/notebooks.py run $< $@

READERS := 01_zero_shot_problem 05_alternating_backprop 09_incomplete_features 10_latent_space \
	90_results 91_speed 92_paper1_claims 93_paper2_claims 94_paper2_attributes
$(READERS:%=_build/notebooks/%.ipynb): $(RECORDS)

# Always a whole build: Sphinx repeats no warning for a page that it did not read again,
# so a second build after a failed one would pass.
$(SITE): $(RUNS) $(PAGES) $(wildcard zsl_lib/data/hangul/*.md zsl_lib/data/hangul/*.csv) _config.yml _toc.yml references.bib CHANGELOG.md CONTRIBUTING.md .ci/stage.py .ci/exercises.py .ci/launch.py .ci/launch_cell.py $(SETUP)
	@rm -rf _build/html _build/.doctrees
	@$(PY) .ci/stage.py
	@echo "Building the site ..."
	@$(BIN)/jupyter-book build _build/book --path-output . -W -n --keep-going -q
	@test -f $@ || { echo "make: $@ not found; jupyter-book ended well but made no book" >&2; exit 1; }
	@if test -d _build/launch; then cp -R _build/launch _build/html/launch; fi

# --- checks -------------------------------------------------------------------------------------------

test: check unit nbval ## every check: quick ones, unit tests, committed notebooks

check: lint pairs ## the quick checks: ruff, mypy, codespell, notebook pairs and outputs

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

pairs: $(SETUP)
	@$(PY) .ci/notebooks.py check

unit: $(SETUP) $(UNIT_SETUP) ## unit tests
	$(PY) -m pytest $(SIDE_BY_SIDE)

SECONDS ?= 60
fuzz: $(SETUP) $(FUZZ_SETUP) ## fuzz each reader (SECONDS=60 of it; ONLY="zip tgz" for some)
	@$(PY) tests/fuzz/fuzz_readers.py --seconds $(SECONDS) $(ONLY)

nbval: $(SETUP) ## run the committed notebooks and compare the outputs marked for it
ifeq ($(PAIRS),)
	@echo "nbval: no notebooks yet"
else
	$(PY) -m pytest --nbval-lax $(SIDE_BY_SIDE) notebooks
endif

check-site: $(SETUP) $(SITE_SETUP) ## check the built site, in a browser too (OPTIONS="--browser required")
	@test -f _build/html/index.html || { \
	  echo "make: _build/html/index.html not found; run make book first" >&2; exit 1; }
	@$(PY) .ci/check_site.py $(OPTIONS)

pdf: book $(SITE_SETUP) ## the whole book as _build/book.pdf, printed by Chromium
	@$(PY) .ci/pdf.py

slides: book $(SITE_SETUP) ## slides of the notebooks' pages, in _build/html/slides
	@$(PY) .ci/slides.py $(OPTIONS)

# --- notebooks ----------------------------------------------------------------------------------------

lab: $(SETUP) ## open JupyterLab; a notebook and its .py are kept in step
	$(BIN)/jupyter lab --notebook-dir=.

refresh: $(SETUP) ## execute and clean the committed pairs (ONLY=notebooks/05_x.py for one)
	@$(PY) .ci/notebooks.py refresh $(or $(ONLY),$(SOURCES))

assignment: $(SETUP) $(GRADER) ## assignments for nbgrader in _build/assignments/release (PART=name for one)
	@$(PY) .ci/assignment.py make --nbgrader "$(NBGRADER)" $(PART)

grade: $(SETUP) $(GRADER) ## grade _build/assignments/submitted (PART=name; OPTIONS=--force to grade again)
	@$(PY) .ci/assignment.py grade --nbgrader "$(NBGRADER)" $(PART) $(OPTIONS)

class: $(SETUP) ## run every notebook with notebooks/params/class.yaml into _build/class, with its time
	@$(MAKE) --no-print-directory -j$(JOBS) $(CLASS_RUNS)

$(CLASS_RUNS): class-%: notebooks/%.py $(SETUP)
	@$(PY) .ci/notebooks.py run $< _build/class/$*.ipynb --parameters notebooks/params/class.yaml

gpu: $(GPU_RUNS) ## run every notebook with notebooks/params/paper.yaml into _build/gpu (needs a GPU)

$(GPU_RUNS): gpu-%: notebooks/%.py $(SETUP)
	@$(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { \
	  echo "make gpu: torch sees no GPU; expected a machine with CUDA" >&2; exit 1; }
	@$(PY) .ci/notebooks.py run $< _build/gpu/$*.ipynb --parameters $(PARAMETERS)

bench: $(SETUP) ## measure speed and memory; the records go to results/ (about an hour, on a quiet machine)
	$(PY) benchmarks/abp_speed.py
	$(PY) benchmarks/compatibility_speed.py
	$(PY) benchmarks/relation_speed.py
	$(PY) benchmarks/adversarial_speed.py
	$(PY) benchmarks/scale.py

# What students handed in was not built.
HANDED_IN := $(if $(wildcard _build/assignments/submitted/*),_build/assignments)
clean: ## remove what was built (the environment and submissions stay)
	rm -rf $(filter-out $(HANDED_IN),$(wildcard _build/* _build/.[a-z]*)) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
