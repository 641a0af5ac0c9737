"""Put the book's sources and the executed notebooks together in _build/book, for Jupyter Book.

    python .ci/stage.py

Run from the root of the repository, after the notebooks were executed into _build/notebooks. Each page of a
notebook gets a box that says how to run it: papermill's line, what the run took in this build, a table of
the notebook's own parameters, and both files of the pair. Each coding exercise gets its stub and its check.
The status page gets a row a notebook.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from exercises import with_stubs

BUILD = Path("_build")
HANGUL = "zsl_lib/data/hangul"
FILES = ("_config.yml", "_toc.yml", "references.bib", "CHANGELOG.md", "CONTRIBUTING.md")
INCLUDED = (f"{HANGUL}/README.md", f"{HANGUL}/fonts.csv")  # by book/hangul.md
FOLDERS = ("book", "_static")
SPECIAL = re.compile(r"([\\`*_\[\]<>|$])")
ESCAPED = r"\\\1"


def main() -> int:
    stage = BUILD / "book"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for name in FILES:
        if not Path(name).exists():
            sys.exit(f"{name}: not found; expected in the root of the repository")
        shutil.copy2(name, stage / name)
    for name in INCLUDED:
        if Path(name).exists():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, stage / name)
    for name in FOLDERS:
        if Path(name).is_dir():
            ignore = shutil.ignore_patterns(".*", "__pycache__")
            shutil.copytree(name, stage / name, ignore=ignore)
    runs = {}
    for source in sorted(Path("notebooks").glob("[0-9]*.py")):
        executed = BUILD / "notebooks" / f"{source.stem}.ipynb"
        for made in (executed, executed.with_suffix(".json")):
            if not made.exists():
                sys.exit(f"{made}: not found; expected the executed run of {source}, and what it took")
        runs[source.stem] = json.loads(executed.with_suffix(".json").read_text(encoding="utf-8"))
        write_page(source, executed, runs[source.stem], stage)
    write_status(runs, stage)
    return 0


def write_page(source: Path, executed: Path, taken: dict[str, Any], stage: Path) -> None:
    """The executed notebook with the box before its parameters and stubs in exercises, and the downloads."""
    notebook = nbformat.read(executed, as_version=4)
    with_stubs(notebook, source)
    places = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    if places:
        box = nbformat.v4.new_markdown_cell(run_box(source, executed, taken), id="run-this-page")
        notebook.cells.insert(places[0], box)
    nbformat.write(notebook, stage / "notebooks" / executed.name)
    pair = stage / "downloads"
    pair.mkdir(exist_ok=True)
    for path in (source, source.with_suffix(".ipynb")):
        shutil.copy2(path, pair / path.name)


def run_box(source: Path, executed: Path, taken: dict[str, Any]) -> str:
    """How to run a page, in MyST."""
    found = papermill.inspect_notebook(str(executed)).values()
    names = [p["name"] for p in found]
    changed = " -p seed 1" if "seed" in names else ""
    device = "CPU or CUDA" if "device" in names else "CPU"
    rows = [f"| `{p['name']}` | `{p['default']}` | {SPECIAL.sub(ESCAPED, p['help'])} |" for p in found]
    files = " and ".join(f"{{download}}`{f} <../downloads/{f}>`" for f in (executed.name, source.name))
    return "\n".join(
        [
            f":::{{dropdown}} Run this page: {taken['seconds']:.0f} s, {taken['memory_mb']} MB, {device}",
            "```bash",
            f"papermill notebooks/{executed.name} out.ipynb{changed}",
            "```",
            "",
            "from the root of the repository, once it is [set up](../book/setup.md). Time and memory are of"
            f" this build. Each parameter is changed by a `-p name value` of its own. Files: {files}.",
            "",
            "| parameter | default | what it is |",
            "| --- | --- | --- |",
            *rows,
            ":::",
        ]
    )


def write_status(runs: dict[str, dict[str, Any]], stage: Path) -> None:
    """The table of book/status.md: what each notebook's run took, and with which versions."""
    lines = ["| page | finished | seconds | memory (MB) | versions |", "| --- | --- | ---: | ---: | --- |"]
    for name, taken in runs.items():
        versions = ", ".join(f"{package} {version}" for package, version in taken["versions"].items())
        row = (taken["finished"], f"{taken['seconds']:.0f}", taken["memory_mb"], versions)
        lines.append(f"| [](../notebooks/{name}) | " + " | ".join(map(str, row)) + " |")
    (stage / "book" / "runs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
