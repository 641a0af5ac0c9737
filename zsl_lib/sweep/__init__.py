"""Sweeps: one notebook run with many seeds and settings, on one machine or on a cluster.

``python -m zsl_lib.sweep --help`` has the commands; :func:`sweep` is the same from Python. A sweep that was
stopped goes on where it was, and a run that fails stops no other.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import joblib

from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.sweep import workers
from zsl_lib.sweep.plan import OWN, Notebook, Run, check, product, read_notebook, run_name
from zsl_lib.sweep.run import Status, state_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["prepare", "sweep", "work"]


def sweep(
    notebook: str | Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    dask: str | None = None,
    timeout: float | None = None,
    checkpoint: bool = False,
) -> pd.DataFrame:
    """Run a notebook with every combination of the grid, ``{"seed": range(10), "sigma": [0.1, 0.3]}``.

    What is done is not done again. Each run is in a folder of ``out`` that is named after its settings.

    Parameters
    ----------
    out: ``_build/sweep/<notebook>`` by default.
    jobs: runs at a time; the number of cores by default. Not with ``dask``, whose workers decide.
    threads: of each run; by default ``OMP_NUM_THREADS`` if that is set, else cores / jobs, and with ``dask``
        what the worker has.
    dask: address of a scheduler, ``tcp://127.0.0.1:8786``; None: processes of this machine.
    timeout: seconds that a run may take.
    checkpoint: give each run a file for the notebook's parameter ``checkpoint``, so that one that was stopped
        goes on from its last epoch; removed when the run is done.

    Returns
    -------
    The table that ``out/summary.csv`` holds: see :func:`zsl_lib.sweep.summary.gather`. A run that failed has
    its ``error`` there.

    Raises
    ------
    DataError: something is wrong with the arguments, before anything runs; or another sweep uses ``out``.
    ImportError: papermill or Dask is not installed.
    """
    from zsl_lib.sweep.summary import gather  # here, because workers import this package but not pandas

    read, runs = prepare(notebook, grid, out=out, threads=threads, timeout=timeout, checkpoint=checkpoint)
    for _ in work(read, runs, jobs=jobs, dask=dask):
        pass
    return gather(runs[0].folder.parent, read)


def prepare(
    notebook: str | Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    out: str | Path | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    checkpoint: bool = False,
) -> tuple[Notebook, list[Run]]:
    """The notebook and the runs of :func:`sweep`; nothing is written, nothing runs."""
    read, grid = read_notebook(notebook), {name: list(values) for name, values in grid.items()}
    check(read, grid)
    for name, value in (("threads", threads), ("timeout", timeout)):
        if value is not None and not value > 0:
            raise DataError(f"--{name}", found=value, expected="a number above 0")
    if checkpoint and "checkpoint" not in read.defaults:
        raise DataError(str(read.path), found="no parameter checkpoint", expected="one for --checkpoint")
    own = [name for name in OWN if name in read.defaults and (checkpoint or name != "checkpoint")]
    folder = Path(out or Path("_build", "sweep", read.path.stem)).resolve()
    sweep_id = uuid.uuid4().hex
    runs = []
    for settings in product(read, grid):
        place = folder / run_name(settings)
        runs.append(
            Run(
                name=place.name,
                folder=place,
                source=folder / "source.ipynb",
                digest=read.digest,
                settings=settings,
                own={name: str(place / OWN[name]) for name in own},
                cwd=Path.cwd(),
                threads=threads,
                timeout=timeout,
                sweep=sweep_id,
            )
        )
    return read, runs


def work(
    notebook: Notebook, runs: Sequence[Run], *, jobs: int | None = None, dask: str | None = None
) -> Iterator[Status]:
    """Do what is not done yet; one status a run, as they end.

    Raises
    ------
    DataError: another sweep is at work in the folder; no scheduler; ``jobs`` below 1 or with ``dask``.
    """
    if jobs is not None and (jobs < 1 or dask):
        expected = "1 or more" if jobs < 1 else "none with --dask, whose workers decide"
        raise DataError("--jobs", found=jobs, expected=expected)
    folder = runs[0].folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        todo = [run for run in runs if state_of(run) != "done"]
        if not todo:
            return
        atomic_write(todo[0].source, lambda file: file.write(notebook.text.encode()))
        if dask:
            yield from workers.cluster(todo, dask)
        else:
            jobs = jobs or min(joblib.cpu_count(), len(todo))
            yield from workers.local([_with_threads(run, jobs) for run in todo], jobs)


def _with_threads(run: Run, jobs: int) -> Run:
    if run.threads is not None or "OMP_NUM_THREADS" in os.environ:
        return run
    return replace(run, threads=max(joblib.cpu_count() // jobs, 1))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise DataError(str(folder), found="another sweep at work", expected="none", hint="--out") from error
    try:
        yield
    finally:
        lock.release()
