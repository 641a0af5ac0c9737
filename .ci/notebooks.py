"""Execute and check the paired notebooks: the .py is the source, the .ipynb its executed pair.

    python .ci/notebooks.py run notebooks/01_x.py _build/notebooks/01_x.ipynb [--parameters FILE]
    python .ci/notebooks.py refresh notebooks/01_x.py ...
    python .ci/notebooks.py check

Run from the root of the repository. `check` prints every problem and exits 1 if there is one.
"""

import argparse
import datetime
import difflib
import json
import platform
import re
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from jupytext.config import load_jupytext_configuration_file

Notebook = nbformat.NotebookNode

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
FORMATS = "ipynb,py:percent"
HOME = re.compile(r"(?<![\w.])(/(?:home|Users)/[\w.-]+|/root|[A-Z]:\\Users\\[\w.-]+)(?=[/\\])")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
SAID = ("torch", "numpy", "papermill")  # whose versions the status page tells
WIDGET = "application/vnd.jupyter.widget-view+json"


def cell_id(number: int) -> str:
    return f"cell-{number:02d}"


def source_of(notebook: Path) -> Path:
    return notebook.with_suffix(".py")


def as_percent(notebook: Notebook) -> str:
    """The text of the .py pair, written with the [tool.jupytext] settings of pyproject.toml."""
    config = load_jupytext_configuration_file("pyproject.toml")
    return str(jupytext.writes(notebook, "py:percent", config=config))


def join_streams(outputs: list[Any]) -> list[Any]:
    """Join neighbouring pieces of one stream: where the kernel splits them depends on timing."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        stream = output["output_type"] == "stream"
        if stream and last and last["output_type"] == "stream" and last["name"] == output["name"]:
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def without_progress(outputs: list[Any]) -> list[Any]:
    """Drop progress bars (stderr that rewrites its line, and what ends one): no rerun repeats their times."""
    return [
        o for o in outputs if not (o.get("name") == "stderr" and ("\r" in o["text"] or o["text"].isspace()))
    ]


def clean(notebook: Notebook) -> None:
    """Keep what belongs to the book, in place; after this a pure rerun changes no line."""
    notebook.metadata = nbformat.from_dict(
        {"jupytext": {"formats": FORMATS}, "kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = cell_id(number)
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb") and v}
        )
        if cell.cell_type == "code":
            cell.outputs = without_progress(join_streams(cell.outputs))
    notebook.nbformat, notebook.nbformat_minor = 4, 5


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that an interrupted run leaves no half notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def execute(source: Path, parameters: dict[str, Any]) -> Notebook:
    """Run the notebook with papermill in a fresh kernel; exit 1, naming file and cell, if it raises.

    Of the parameters, which may be a file's for many notebooks, it takes those that it has.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    work = Path("_build/running")
    work.mkdir(parents=True, exist_ok=True)
    fresh, done = work / f"{source.stem}.in.ipynb", work / f"{source.stem}.ipynb"
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata["kernelspec"] = KERNEL
    nbformat.write(notebook, fresh)
    own = papermill.inspect_notebook(str(fresh)) if parameters else {}
    parameters = {name: value for name, value in parameters.items() if name in own}
    try:
        papermill.execute_notebook(
            fresh, done, parameters, kernel_name="python3", progress_bar=False, cwd=source.parent
        )
    except PapermillExecutionError as error:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        print(trace, file=sys.stderr)
        sys.exit(
            f"{source}: code cell [{error.exec_count}] raised {error.ename}: {error.evalue}"
            f" (expected: every cell runs; the run so far is in {done})"
        )
    finally:
        fresh.unlink(missing_ok=True)
    result: Notebook = nbformat.read(done, as_version=4)
    done.unlink()
    return result


def make(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Execute a source and clean the run."""
    notebook = execute(source, parameters)
    clean(notebook)
    nbformat.validate(notebook)
    write_text(target, nbformat.writes(notebook) + "\n")


def run(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """The same, with what the run took in a .json beside it, for the page and the status page."""
    begin = time.perf_counter()
    make(source, target, parameters)
    megabyte = 2**20 if platform.system() == "Darwin" else 2**10  # ru_maxrss is in bytes there
    taken = {
        "seconds": round(time.perf_counter() - begin, 1),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / megabyte),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in SAID},
    }
    write_text(target.with_suffix(".json"), json.dumps(taken, indent=1) + "\n")
    print(f"{target}: executed from {source} in {taken['seconds']:.0f} s", flush=True)


def refresh(source: Path) -> None:
    """Execute a source into its committed pair, and write the source the way jupytext does."""
    target = source.with_suffix(".ipynb")
    make(source, target, {})
    text = as_percent(nbformat.read(target, as_version=4))
    if text != source.read_text(encoding="utf-8"):
        write_text(source, text)
    print(f"{target}: executed from {source}", flush=True)


def pair_problems(path: Path, notebook: Notebook) -> list[str]:
    source = source_of(path)
    if not source.exists():
        return [f"{path}: found no pair {source}; expected the py:percent source beside it"]
    found, expected = source.read_text(encoding="utf-8"), as_percent(notebook)
    if found == expected:
        return []
    lines = difflib.unified_diff(
        expected.splitlines(), found.splitlines(), str(path), str(source), lineterm="", n=1
    )
    return [f"{source}: differs from its pair {path}; run `make refresh`\n  " + "\n  ".join(lines)]


def output_problems(path: Path, notebook: Notebook) -> list[str]:
    problems: list[str] = []
    if "papermill" in notebook.metadata:
        problems.append(f"{path}: found papermill metadata; expected none; run `make refresh`")
    count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        where = f"{path}: cell {number}"
        if cell.get("id") != cell_id(number):
            problems.append(f"{where}: found id {cell.get('id')!r}; expected {cell_id(number)!r}")
        if "papermill" in cell.metadata or "execution" in cell.metadata:
            problems.append(f"{where}: found run metadata (papermill, execution); expected none")
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        if cell.execution_count != count:
            problems.append(
                f"{where}: found execution_count {cell.execution_count}; expected {count}"
                " (every code cell run once, in order, in a fresh kernel); run `make refresh`"
            )
        problems += [f"{where}: {p}" for output in cell.outputs for p in one_output(output)]
    return problems


def one_output(output: Any) -> list[str]:
    if output["output_type"] == "error":
        return [f"found the error {output['ename']}: {output['evalue']}; expected none"]
    problems = []
    data = {"text": output["text"]} if output["output_type"] == "stream" else output["data"]
    if WIDGET in data:
        problems.append("found a Jupyter widget, which a page shows only with a CDN; expected plain output")
    text = "\n".join(v for k, v in data.items() if k.startswith("text") and isinstance(v, str))
    if home := HOME.search(text):
        problems.append(f"found the path {home.group(0)!r} of one machine in the output; expected none")
    if address := ADDRESS.search(text):
        problems.append(f"found{address.group(0)!r}, which changes with every run; expected none")
    return problems


def check(folder: Path) -> int:
    paths = sorted(folder.glob("*.ipynb"))
    problems = [
        f"{source}: found no pair {source.with_suffix('.ipynb')}; run `make refresh`"
        for source in sorted(folder.glob("*.py"))
        if not source.with_suffix(".ipynb").exists()
    ]
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        problems += pair_problems(path, notebook) + output_problems(path, notebook)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"notebooks: {len(paths)} pairs checked, {len(problems)} problems", flush=True)
    return 1 if problems else 0


def read_parameters(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    if not path.exists():
        sys.exit(f"{path}: not found; expected a YAML file of parameter: value")
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(parameters, dict):
        sys.exit(f"{path}: found {type(parameters).__name__}; expected a mapping of parameter: value")
    return parameters


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute and check the paired notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--parameters", type=Path)
    many = commands.add_parser("refresh")
    many.add_argument("sources", type=Path, nargs="+")
    commands.add_parser("check")
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check(Path("notebooks"))
    if arguments.command == "run":
        run(arguments.source, arguments.target, read_parameters(arguments.parameters))
    else:
        for source in arguments.sources:
            refresh(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
