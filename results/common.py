"""What the experiments share: arguments, settings, and the loop over runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from zsl_lib import record, tuning
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.files import project_root
from zsl_lib.learn.methods import METHODS


def parser(description: str, methods: Iterable[str]) -> argparse.ArgumentParser:
    """The arguments of every experiment that compares methods."""
    methods, made = list(methods), argparse.ArgumentParser(description=description)
    made.add_argument("dataset")
    made.add_argument("--semantics", default="att")
    made.add_argument("--root", help="folder of the benchmarks; the environment's ZSL_DATA_DIR by default")
    made.add_argument("--methods", nargs="+", choices=methods, default=methods)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    made.add_argument("--jobs", type=int, default=1, help="runs at a time")
    made.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return made


def generative_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of :mod:`convergence`, :mod:`generative` and :mod:`seen_classes`."""
    made = parser(description, METHODS)
    made.add_argument("--hidden", type=int, default=4096, help="width of every hidden layer")
    made.add_argument("--precision", default="float32", help="of matrix products: float32 or bfloat16")
    made.add_argument("--device", default="auto")
    return made


def shared(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of every method that has them."""
    widths = dict.fromkeys(("hidden", "encoder_hidden", "critic_hidden"), options.hidden)
    return widths | {"precision": options.precision}


def name_in_records(raw: ZSLDataset, options: argparse.Namespace) -> str:
    """``CUB100+sent``."""
    return raw.name if options.semantics == "att" else f"{raw.name}+{options.semantics}"


def semantics_words(options: argparse.Namespace) -> list[str]:
    """What to type for descriptions other than the attributes."""
    return [] if options.semantics == "att" else [f"--semantics {options.semantics}"]


def arguments(options: argparse.Namespace, method: str, seed: int) -> str:
    """What to type for one method and seed."""
    width = f"--hidden {options.hidden} --precision {options.precision} --samples {options.samples}"
    words = [options.dataset, *semantics_words(options), f"--methods {method} --seeds {seed} {width}"]
    return " ".join(words)


def search_once(
    experiment: str,
    method: str,
    raw: ZSLDataset,
    options: argparse.Namespace,
    make: Callable[..., Any],
    grid: dict[str, list[Any]],
    *,
    command: str,
    on: ZSLDataset | None = None,
    parameters: dict[str, Any] | None = None,
    measure: tuning.Measure | None = None,
) -> str:
    """The record in ``results/<experiment>`` of :func:`zsl_lib.tuning.search`, unless it is there already.

    Settings are ranked by ``score``; a search that was interrupted goes on. ``on``: what it is done on, the
    data set itself by default. Returns a line about it.
    """
    target = options.results_dir / experiment / record.filename(name_in_records(raw, options), method, 0)
    if target.exists():
        return f"{target.name}: there already"
    log, watch = target.with_suffix(".jsonl"), record.Stopwatch()
    tried = tuning.search(make, grid, on or raw, "score", measure=measure, log=log)
    rows = tried.astype(object).where(tried.notna(), None).to_dict("records")
    watch.record(
        experiment,
        raw,
        method,
        semantics=options.semantics,
        seed=0,
        parameters=(parameters or {}) | {"grid": grid, "tried": rows},
        metrics=tried.drop(columns=list(grid)).loc[0].to_dict(),
        selection="validation",
        command=command,
    ).write(options.results_dir)
    log.unlink()
    return f"{target.name}: {rows[0]}; {watch.seconds():.0f} s"


def best_setting(
    experiment: str, dataset: str, method: str, options: argparse.Namespace, *, script: str
) -> dict[str, Any]:
    """The setting that came out first in a search. DataError: no record of one; ``script`` would make it."""
    file = f"{experiment}/{record.filename(dataset, method, 0)}"
    runs = record.read_records(options.results_dir, experiment)
    found = runs[runs["file"] == file]["parameters"] if len(runs) else []
    if len(found) == 0:
        hint = f"python results/{script}.py {options.dataset} --methods {method}"
        raise DataError(f"{options.results_dir}/{file}", found="no record", expected="one", hint=hint)
    parameters = found.iloc[0]
    return {key: parameters["tried"][0][key] for key in parameters["grid"]}


def run_all(run: Callable[..., str], jobs: Iterable[tuple[Any, ...]], options: argparse.Namespace) -> None:
    """``run(*job, options)`` for each job, ``options.jobs`` at a time; prints what it returns."""
    for line in Parallel(options.jobs, return_as="generator")(delayed(run)(*job, options) for job in jobs):
        print(line, flush=True)
