"""Proof that the build can fail: each kind of breakage turns `.ci/run` red and names the file.

The tree under test is small, but its Makefile, .ci scripts and _config.yml are the real ones.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ("Makefile", ".ci", "_config.yml", "_static", "pyproject.toml")

FILES = {
    "README.md": "# Tiny\n\n```bash\nmake book\nmake test\n```\n",
    "CHANGELOG.md": "# Changelog\n",
    "CONTRIBUTING.md": "# Contributing\n",
    "references.bib": "@misc{a, title = {A}, author = {B, C}, year = {2019}}\n",
    "_toc.yml": "format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/01_tiny\n"
    "  - file: book/setup\n  - file: book/status\n",
    "book/setup.md": "# Set up\n",
    "book/status.md": "# Status\n\n```{include} runs.md\n```\n",
    "book/intro.md": "# Tiny\n\nRead {doc}`../notebooks/01_tiny`.\n",
    "notebooks/01_tiny.py": (
        "# %% [markdown]\n# # A sum\n#\n# :::{admonition} Goals\n# :class: tip\n# - Add.\n#\n"
        "# You need numbers.\n# :::\n\n"
        '# %% tags=["parameters"]\nn = 3  # how many numbers to add, 1 to 10 <b_> [*]\n\n'
        "# %%\n# NBVAL_CHECK_OUTPUT\nprint(sum(range(n)))\n\n"
        "# %% [markdown]\n# ## Summary\n#\n# Numbers have sums.\n"
    ),
    "zsl_lib/__init__.py": '"""Nothing."""\n',
    "tests/test_tiny.py": "def test_tiny() -> None:\n    pass\n",
}

NOTEBOOK = "notebooks/01_tiny.ipynb"
SOURCE = "notebooks/01_tiny.py"


def call(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the tree with the environment of this Python; no install, no terminal."""
    options = (f"VENV={sys.prefix}", "INSTALL=no")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "COV_", "PYTEST"))}
    env |= {name: str(tree.parent / "user") for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR")}
    env["ZSL_CHROMIUM"] = ""  # tests/test_site.py has the browser's part
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # each of some twenty processes would compile Sphinx again
    return subprocess.run(
        [*command, *options],
        cwd=tree,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unbroken tree after a `.ci/run` that passed; the other tests break copies of it."""
    tree = tmp_path_factory.mktemp("green") / "tree"
    tree.mkdir()
    for name in CONFIG:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tree / name)
    for name, text in FILES.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    # A user's own python3 kernel must not stand in for the environment's.
    kernel = tree.parent / "user/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(
        '{"argv": ["false"], "display_name": "Python 3", "language": "python"}', encoding="utf-8"
    )
    made = call(tree, "make", "refresh")
    assert made.returncode == 0, made.stdout
    done = call(tree, ".ci/run")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("All checks passed.\n")
    return tree


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def raising_notebook(tree: Path) -> None:
    edit(tree / SOURCE, "print(sum(range(n)))", 'raise ValueError("no such set")')


def broken_reference(tree: Path) -> None:
    edit(tree / "book/intro.md", "Read", "See {ref}`no-such-label`. Read")


def unexecuted_cell(tree: Path) -> None:
    notebook = json.loads((tree / NOTEBOOK).read_text(encoding="utf-8"))
    notebook["cells"][2].update(execution_count=None, outputs=[])
    (tree / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")


def unsynced_pair(tree: Path) -> None:
    edit(tree / NOTEBOOK, "n = 3 ", "n = 4 ")


def readme_without_command(tree: Path) -> None:
    edit(tree / "README.md", "make test", "make check")


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (raising_notebook, [f"{SOURCE}: code cell [2] raised ValueError: no such set"]),
        (broken_reference, ["book/intro.md", "no-such-label"]),
        (unexecuted_cell, [f"{NOTEBOOK}: cell 3: found execution_count None; expected 2"]),
        (unsynced_pair, [f"{SOURCE}: differs from its pair {NOTEBOOK}", "-n = 4", "+n = 3"]),
        (readme_without_command, ["README.md: found no line 'make test'"]),
    ],
)
def test_breakage_turns_ci_red(
    green: Path, tmp_path: Path, damage: Callable[[Path], None], messages: list[str]
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(green, tree)
    damage(tree)
    result = call(tree, ".ci/run")
    assert result.returncode != 0, result.stdout
    assert "All checks passed." not in result.stdout
    for message in messages:
        assert message in result.stdout
    if damage is broken_reference:
        # Sphinx does not warn again about a page it has read; a second make must not pass for that.
        assert call(tree, "make", "book").returncode != 0
        assert not (tree / "_build/html/index.html").exists()


def test_changed_output_turns_nbval_red(green: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(green, tree, ignore=shutil.ignore_patterns("_build"))
    edit(tree / NOTEBOOK, '"3\\n"', '"5\\n"')
    result = call(tree, "make", "nbval")
    assert result.returncode != 0
    assert "FAILED notebooks/01_tiny.ipynb::Cell 1" in result.stdout


def test_make_check_site_names_what_is_wrong(green: Path, tmp_path: Path) -> None:
    """One defect of each kind of page; tests/test_site.py has every check."""
    tree = tmp_path / "tree"
    shutil.copytree(green, tree)
    edit(tree / "_toc.yml", "notebooks/01_tiny\n", "notebooks/01_tiny\n  - file: book/missing\n")
    edit(tree / "_build/html/notebooks/01_tiny.html", "cell_output", "cell_nothing")
    edit(
        tree / "_build/html/book/intro.html",
        "</head>",
        '<script src="https://cdn.test/a.js"></script></head>',
    )
    result = call(tree, "make", "check-site")
    assert result.returncode != 0
    for message in (
        "_build/html/book/missing.html: not found; expected the page of 'book/missing' in _toc.yml",
        "_build/html/book/intro.html: loads https://cdn.test/a.js; expected nothing from another host",
        "_build/html/notebooks/01_tiny.html: found no cell output; expected an executed notebook's results",
        "browser: not checked (found no Chromium on PATH; ZSL_CHROMIUM can name one)",
        "site: 5 pages checked, 3 problems",
    ):
        assert message in result.stdout.splitlines()
    shutil.rmtree(tree / "_build/html")
    result = call(tree, "make", "check-site")
    assert result.returncode != 0
    assert "make: _build/html/index.html not found; run make book first" in result.stdout


def test_a_page_says_how_it_is_run_and_what_that_took(green: Path) -> None:
    taken = json.loads((green / "_build/notebooks/01_tiny.json").read_text(encoding="utf-8"))
    assert taken["seconds"] > 0
    assert taken["memory_mb"] > 1
    assert taken["versions"]["python"]
    page = (green / "_build/html/notebooks/01_tiny.html").read_text(encoding="utf-8")
    for words in (
        f"Run this page: {taken['seconds']:.0f} s, {taken['memory_mb']} MB, CPU",
        "papermill notebooks/01_tiny.ipynb out.ipynb",
        "how many numbers to add, 1 to 10 &lt;b_&gt; [*]",
    ):
        assert words in re.sub(r"</?(?:span|p)[^>]*>", "", page)
    for name in ("01_tiny.ipynb", "01_tiny.py"):
        (copy,) = (green / "_build/html/_downloads").rglob(name)
        assert copy.read_bytes() == (green / "notebooks" / name).read_bytes()
    status = (green / "_build/html/book/status.html").read_text(encoding="utf-8")
    assert f"{taken['seconds']:.0f}</p>" in status
    assert taken["finished"] in status


def test_make_class_runs_with_the_parameters_that_a_notebook_has(green: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(green, tree)
    (tree / "notebooks/params").mkdir()
    (tree / "notebooks/params/class.yaml").write_text("n: 4\nof_another: 1\n", encoding="utf-8")
    result = call(tree, "make", "class")
    assert result.returncode == 0, result.stdout
    target = "_build/class/01_tiny.ipynb"
    assert re.search(rf"^{target}: executed from {SOURCE} in \d+ s$", result.stdout, re.MULTILINE)
    assert "unknown parameter" not in result.stdout
    assert '"6\\n"' in (tree / target).read_text(encoding="utf-8")


def test_make_slides_shows_the_page(green: Path) -> None:
    deck = (green / "_build/html/slides/01_tiny.html").read_text(encoding="utf-8")
    for words in ("<h2>Summary</h2>", "Numbers have sums.", "print", "Goals"):
        assert words in deck
    assert "Run this page" not in deck
    page = (green / "_build/html/notebooks/01_tiny.html").read_text(encoding="utf-8")
    assert '<a href="../slides/01_tiny.html">' in page


def test_nothing_runs_again_when_nothing_changed(green: Path) -> None:
    again = call(green, "make", "book")
    assert again.returncode == 0, again.stdout
    assert again.stdout == "The book is ready: _build/html/index.html\n"


def test_refresh_changes_no_line(green: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(green, tree)
    before = {name: (tree / name).read_bytes() for name in (SOURCE, NOTEBOOK)}
    assert call(tree, "make", "refresh").returncode == 0
    assert {name: (tree / name).read_bytes() for name in before} == before


def test_python_too_old_is_said(tmp_path: Path) -> None:
    """`make` with a Python 3.9 (macOS's own) says so, and what to do, before it installs anything."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "constraints.txt").touch()
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.6" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "install", f"PYTHON={old}"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Python 3.9.6; expected Python >= 3.11" in result.stderr
    assert not (tmp_path / ".venv").exists()
