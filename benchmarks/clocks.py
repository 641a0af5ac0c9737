"""How the benchmarks measure time and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def milliseconds(work: Callable[[], Any]) -> float:
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return (time.perf_counter() - start) * 1e3


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(works: dict[str, Callable[[], Any]], repeats: int, warm: int = 2) -> dict[str, np.ndarray]:
    """Times in ms ``[repeats]`` of each, one of each in every round, after ``warm`` rounds to warm up."""
    rounds = [{name: milliseconds(work) for name, work in works.items()} for _ in range(repeats + warm)]
    return {name: np.array([r[name] for r in rounds[warm:]]) for name in works}


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
