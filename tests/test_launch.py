"""Pages run elsewhere: links and notebooks where the repository's address is set, else none."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

import launch  # noqa: E402
import stage  # noqa: E402

AT = launch.Address("somebody", "zsl-book", "main")
TAKEN = {"seconds": 3.2, "memory_mb": 200, "finished": "2026-01-01 00:00 UTC", "versions": {"python": "3.12"}}
COLAB = "https://colab.research.google.com/github/somebody/zsl-book/blob/gh-pages/launch/01_a.ipynb"
BINDER = "https://mybinder.org/v2/gh/somebody/zsl-book/main?urlpath=lab/tree/notebooks/01_a.ipynb"


@pytest.mark.parametrize("config", [{}, {"repository": None}, {"repository": {"url": "", "branch": "main"}}])
def test_without_an_address_there_is_no_button(config: dict[str, Any]) -> None:
    assert launch.address(config) is None
    assert launch.buttons(None, "01_a.ipynb") == []


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_an_address_gives_both_links(end: str) -> None:
    at = launch.address({"repository": {"url": f"https://github.com/somebody/zsl-book{end}"}})
    assert at == AT
    (line, empty) = launch.buttons(at, "01_a.ipynb")
    assert f"[Open in Colab]({COLAB})" in line
    assert f"[Open on Binder]({BINDER})" in line
    assert empty == ""


@pytest.mark.parametrize(
    "url", ["github.com/somebody/zsl-book", "https://github.com/somebody", "https://x.org/a/b"]
)
def test_a_wrong_address_is_named(url: str) -> None:
    with pytest.raises(SystemExit, match=f"found url '{url}'; expected https://github.com/OWNER/NAME"):
        launch.address({"repository": {"url": url}})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a book of one notebook that was executed, without an address."""
    monkeypatch.chdir(tmp_path)
    cells = [
        nbformat.v4.new_code_cell("n = 3  # how many", id="cell-01", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("n", id="cell-02", execution_count=2),
    ]
    cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "3"}, execution_count=2)]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    for name in ("notebooks", "book", "_static", "_build/notebooks"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("_toc.yml", "references.bib", "CHANGELOG.md", "CONTRIBUTING.md", "notebooks/01_a.py"):
        (tmp_path / name).write_text("", encoding="utf-8")
    for name in ("notebooks/01_a.ipynb", "_build/notebooks/01_a.ipynb"):
        nbformat.write(notebook, tmp_path / name)
    (tmp_path / "_build/notebooks/01_a.json").write_text(json.dumps(TAKEN), encoding="utf-8")
    (tmp_path / "_config.yml").write_text('repository:\n  url: ""\n', encoding="utf-8")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def staged_box(tree: Path) -> str:
    notebook = nbformat.read(tree / "_build/book/notebooks/01_a.ipynb", as_version=4)
    (box,) = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return str(box)


def test_the_build_without_an_address(tree: Path) -> None:
    assert stage.main() == 0
    box = staged_box(tree)
    assert "papermill notebooks/01_a.ipynb out.ipynb" in box
    assert "Colab" not in box
    assert not (tree / "_build/launch").exists()


def test_the_build_with_an_address(tree: Path) -> None:
    before = (tree / "notebooks/01_a.ipynb").read_bytes()
    (tree / "_config.yml").write_text(f"repository:\n  url: {AT.url}\n", encoding="utf-8")
    assert stage.main() == 0
    box = staged_box(tree)
    assert COLAB in box
    assert BINDER in box
    assert "papermill notebooks/01_a.ipynb out.ipynb" in box
    assert (tree / "notebooks/01_a.ipynb").read_bytes() == before
    text, cell, *rest = nbformat.read(tree / "_build/launch/01_a.ipynb", as_version=4).cells
    assert f"{AT.url}/blob/main/notebooks/01_a.ipynb" in text.source
    assert cell.source.splitlines()[-1].startswith(f"prepare('{AT.url}', 'main', ['filelock>=")
    assert "'torch>=2.6'" in cell.source
    assert "'arviz>=0.20,<1'" in cell.source
    compile(cell.source, "cell", "exec")
    assert [c.source for c in rest] == ["n = 3  # how many", "n"]
    assert all(not c.outputs and c.execution_count is None for c in rest)
    (tree / "_config.yml").write_text("repository: {}\n", encoding="utf-8")
    assert stage.main() == 0
    assert not (tree / "_build/launch").exists()


def wheel(folder: Path, name: str, number: str, *requires: str) -> None:
    """A package of that name and nothing in it."""
    info = f"{name}-{number}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The cell's function, with a pip that installs nothing: returns what it would have installed.

    The packages that pip can have are two that need torch, and a torch newer than the one that is here.
    """
    packages, home, work = tmp_path / "packages", tmp_path / "home", tmp_path / "work"
    for folder in (packages, home / "notebooks", work):
        folder.mkdir(parents=True)
    wheel(packages, "modest_package", "1.0", "torch")
    wheel(packages, "greedy_package", "1.0", "torch>=99")
    wheel(packages, "torch", "99.0")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (
        ["init", "-q", "-b", "main"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run([*git, *command], cwd=home, check=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # a machine may have constraints of its own
    monkeypatch.setattr(sys, "path", list(sys.path))
    run, report = subprocess.run, tmp_path / "report.json"

    def dry(command: list[str], **options: Any) -> Any:
        if "pip" in command:
            command = [*command, "--dry-run", "--no-index", f"--find-links={packages}", f"--report={report}"]
        done = run(command, **options)
        if command[0] == "git":
            (work / "zsl-book/notebooks").mkdir()  # git has no empty folders
        return done

    monkeypatch.setattr(subprocess, "run", dry)

    def call(*needs: str) -> list[str]:
        function = runpy.run_path(str(ROOT / ".ci/launch_cell.py"))["prepare"]
        function(home.as_uri(), "main", needs)
        if not report.exists():
            return []
        install = json.loads(report.read_text(encoding="utf-8"))["install"]
        return [item["metadata"]["name"] for item in install]

    return call


def test_the_cell_installs_what_is_missing_and_leaves_torch(
    prepare: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("torch>=2.6", "numpy>=2.0", "modest-package>=0.5,<2") == ["modest_package"]
    assert "Ready. Installed: modest-package>=0.5,<2" in capsys.readouterr().out
    assert Path.cwd() == tmp_path / "work/zsl-book/notebooks"
    assert sys.path[0] == str(tmp_path / "work/zsl-book")


def test_the_cell_leaves_all_as_it_is_where_nothing_is_missing(
    prepare: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("torch>=2.6", "scikit-learn>=1.5") == []
    assert "nothing; all of it was there" in capsys.readouterr().out


def test_a_package_that_wants_another_torch_is_refused(prepare: Callable[..., list[str]]) -> None:
    before = version("torch")
    with pytest.raises(subprocess.CalledProcessError):
        prepare("greedy-package")
    assert version("torch") == before


def test_without_its_constraints_pip_would_have_replaced_torch(tmp_path: Path) -> None:
    """The test above could not fail otherwise."""
    wheel(tmp_path, "greedy_package", "1.0", "torch>=99")
    wheel(tmp_path, "torch", "99.0")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", f"--find-links={tmp_path}"]
    done = subprocess.run(
        [*command, "greedy-package"],
        env=os.environ | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch-99.0" in done.stdout
