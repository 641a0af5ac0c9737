"""One notebook with many seeds and settings, each run apart, the rest done if one fails.

python -m zsl_lib.sweep notebooks/05_alternating_backprop.ipynb --seeds 0-9 --set dataset=CUB100 sigma=0.1,0.3

The same command again does what is not done yet.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zsl_lib.errors import DataError
from zsl_lib.sweep import prepare, work
from zsl_lib.sweep.plan import (
    Notebook,
    Run,
    parse_seeds,
    parse_settings,
    read_notebook,
    read_parameters,
    value_text,
)
from zsl_lib.sweep.run import FAILED, Status, state_of


def main(arguments: list[str] | None = None) -> int:
    """0: all runs are done; 1: some failed; 2: the command is wrong; 130: stopped."""
    options = _parser().parse_args(arguments)
    try:
        grid = _grid(options)
        notebook, runs = prepare(
            options.notebook,
            grid,
            out=options.out,
            threads=options.threads,
            timeout=options.timeout,
            checkpoint=options.checkpoint,
        )
        return _show(runs) if options.dry_run else _sweep(notebook, runs, options)
    except (DataError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zsl_lib.sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("notebook", help="the notebook (.ipynb)")
    add("--seeds", metavar="SEEDS", help="0-9, or 0,3,5: values of the parameter seed")
    settings = add("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE,...")
    settings.help = "values of parameters; all combinations are run"
    files = add("-f", "--parameters", nargs="+", action="extend", default=[], metavar="FILE")
    files.help = "YAML files of parameters, as papermill has them; --set overrides them"
    add("--out", type=Path, help="folder of the runs (default: _build/sweep/<notebook>)")
    add("--jobs", type=int, help="runs at a time (default: the number of cores)")
    add("--threads", type=int, help="threads of each run (default: OMP_NUM_THREADS, else cores / jobs)")
    add("--timeout", type=float, metavar="SECONDS", help="what a run may take; longer is a failure")
    add("--checkpoint", action="store_true", help="let a run that was stopped go on from its last epoch")
    add("--dask", metavar="ADDRESS", help="run on the workers of this scheduler, tcp://127.0.0.1:8786")
    add("--dry-run", action="store_true", help="list the runs and what is to be done; run nothing")
    return parser


def _grid(options: argparse.Namespace) -> dict[str, Sequence[Any]]:
    """Values of each parameter. Of a file only those that the notebook has: chapters share the files."""
    grid: dict[str, Sequence[Any]] = dict(parse_settings(options.set))
    if options.seeds is not None:
        if "seed" in grid:
            raise DataError("--seeds", found="seed in --set too", expected="one of them")
        grid["seed"] = parse_seeds(options.seeds)
    if not options.parameters:
        return grid
    given, has = read_parameters(options.parameters), read_notebook(options.notebook).defaults
    unknown = [str(name) for name in given if name not in has]
    if len(unknown) == len(given):
        found = f"no parameter of {options.notebook}"
        raise DataError(", ".join(options.parameters), found=found, expected=f"some of {', '.join(has)}")
    if unknown:
        print(f"not in {options.notebook}, left out: {', '.join(unknown)}", file=sys.stderr)
    return {name: [value] for name, value in given.items() if name in has} | grid


def _show(runs: Sequence[Run]) -> int:
    states = {run.name: state_of(run) for run in runs}
    for name, state in states.items():
        print(f"{state:<12} {name}")
    print(_count(states), f"in {_short(runs[0].folder.parent)}")
    return 0


def _count(states: dict[str, str]) -> str:
    parts = ", ".join(f"{number} {state}" for state, number in Counter(states.values()).items())
    return f"{len(states)} run{'s' * (len(states) != 1)} ({parts})"


def _sweep(notebook: Notebook, runs: Sequence[Run], options: argparse.Namespace) -> int:
    states = {run.name: state_of(run) for run in runs}
    folder = runs[0].folder.parent
    print(_count(states), f"in {_short(folder)}", flush=True)
    failed: list[Status] = []
    todo = sum(state != "done" for state in states.values())
    with tqdm(total=todo, unit="run", disable=None if todo else True) as bar:
        for status in work(notebook, runs, jobs=options.jobs, dask=options.dask):
            bar.update()
            bar.write(f"{status.state:<6} {status.name} ({status.seconds:.1f} s) {status.error}".rstrip())
            if status.state == "failed":
                failed.append(status)
    try:
        unusable = _print_table(notebook, folder)
    finally:  # also if a full disk takes no table
        if failed:
            _report(failed, len(runs), folder, options)
    return 1 if failed or unusable else 0


def _print_table(notebook: Notebook, folder: Path) -> int:
    """Means to the screen, all to ``summary.csv``; the number of records that cannot be used."""
    from zsl_lib.sweep.summary import gather, mean_table  # here, because torch and pandas take seconds

    table = gather(folder, notebook)
    means = mean_table(table, notebook)
    print(means.to_string() if len(means) else "no records: the runs wrote none into results_dir")
    print(f"written: {_short(folder / 'summary.csv')}, {len(table)} rows", flush=True)
    unusable = table[(table["state"] == "done") & (table["error"] != "")]
    for _, row in unusable.iterrows():
        print(f"unusable record of {row['run']}: {row['error']}", file=sys.stderr)
    return len(unusable)


def _report(failed: Sequence[Status], total: int, folder: Path, options: argparse.Namespace) -> None:
    print(f"\n{len(failed)} of {total} runs failed:", file=sys.stderr)
    for status in failed:
        print(f"- {status.name}\n  {status.error}", file=sys.stderr)
        if (folder / status.name / FAILED).exists():
            print(f"  as far as it came: {_short(folder / status.name / FAILED)}", file=sys.stderr)
        print(f"  again: {again(status, options)}", file=sys.stderr)


def again(status: Status, options: argparse.Namespace) -> str:
    """What to type to run this one again, in the same folder."""
    words = ["python -m zsl_lib.sweep", shlex.quote(options.notebook)]
    if status.settings:
        settings = (f"{name}={value_text(value)}" for name, value in status.settings.items())
        words += ["--set", *map(shlex.quote, settings)]
    for name in ("out", "timeout", "dask", "threads"):
        if getattr(options, name) is not None:
            words += [f"--{name}", shlex.quote(str(getattr(options, name)))]
    return " ".join([*words, *(["--checkpoint"] if options.checkpoint else [])])


def _short(path: Path) -> Path:
    """Relative to the current folder where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
