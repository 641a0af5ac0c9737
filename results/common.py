"""What the experiments share: arguments, settings, and the loop over runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from zsl_lib.data import ZSLDataset
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


def arguments(options: argparse.Namespace, method: str, seed: int) -> str:
    """What to type for one method and seed."""
    semantics = "" if options.semantics == "att" else f"--semantics {options.semantics} "
    width = f"--hidden {options.hidden} --precision {options.precision} --samples {options.samples}"
    return f"{options.dataset} {semantics}--methods {method} --seeds {seed} {width}"


def run_all(run: Callable[..., str], jobs: Iterable[tuple[Any, ...]], options: argparse.Namespace) -> None:
    """``run(*job, options)`` for each job, ``options.jobs`` at a time; prints what it returns."""
    for line in Parallel(options.jobs, return_as="generator")(delayed(run)(*job, options) for job in jobs):
        print(line, flush=True)
