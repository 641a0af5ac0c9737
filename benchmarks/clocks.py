"""How the benchmarks measure time and memory, and write down what they found."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zsl_lib import record


def milliseconds(work: Callable[[], Any]) -> float:
    """How long a piece of work takes.

    With one thread and no GPU it is the time that the processor gave to it, which on a quiet machine is the
    same, and beside other programs is what it would take without them, nearly.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    _synchronise()
    start = clock()
    work()
    _synchronise()
    return (clock() - start) * 1e3


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(works: dict[str, Callable[[], Any]], repeats: int, warm: int = 2) -> dict[str, np.ndarray]:
    """Times in ms ``[repeats]`` of each, one of each in every round, after ``warm`` rounds to warm up."""
    rounds = [{name: milliseconds(work) for name, work in works.items()} for _ in range(repeats + warm)]
    return {name: np.array([r[name] for r in rounds[warm:]]) for name in works}


def in_pairs(
    base: Callable[[], Any], works: dict[str, Callable[[], Any]], repeats: int, warm: int = 1
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times in ms ``[repeats]`` of each, and of ``base``: the mean of a run right before and one right after.

    A ratio of neighbours in time is not moved by what comes and goes within a round.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats + warm):
        before = milliseconds(base)
        for name, work in works.items():
            own, after = milliseconds(work), milliseconds(base)
            found[name].append((own, (before + after) / 2))
            before = after
    return {name: tuple(np.array(pairs[warm:]).T) for name, pairs in found.items()}


def quartiles(values: np.ndarray, name: str) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {f"{name}_low": low, name: middle, f"{name}_high": high}


def peak_mb() -> float:
    """Most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts what the parent had when it forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def process_peak_mb(script: str, *words: str) -> float:
    """The number that ``python script words`` prints: the :func:`peak_mb` of a process of its own."""
    command = [sys.executable, script, *words]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def write(
    options: argparse.Namespace,
    experiment: str,
    dataset: str,
    method: str,
    metrics: dict[str, float],
    parameters: dict[str, Any],
    *,
    script: str,
    seed: int = 0,
    device: torch.device | None = None,
    digits: int = 2,
) -> None:
    """One record in ``options.results_dir``; what it has but quartiles is printed with so many digits.

    The record's command is ``script`` with the repeats, and the threads where they were chosen.
    """
    chosen = f" --threads {options.threads}" if options.threads else ""
    written = (
        record.Stopwatch()
        .record(
            experiment,
            dataset,
            method,
            seed=seed,
            parameters=parameters | {"threads": torch.get_num_threads()},
            metrics=metrics,
            selection="none",
            device=device or "cpu",
            command=f"python benchmarks/{script} --repeats {options.repeats}{chosen}",
        )
        .write(options.results_dir)
    )
    shown = {k: round(v, digits) for k, v in metrics.items() if not k.endswith(("_low", "_high"))}
    print(f"{written.parent.name}/{written.name}: {shown}", flush=True)
