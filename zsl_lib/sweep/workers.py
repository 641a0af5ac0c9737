"""Runs given to workers: processes of this machine (joblib's loky), or of a cluster (Dask)."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from joblib import Parallel, delayed

from zsl_lib.errors import DataError
from zsl_lib.sweep.plan import Run, optional
from zsl_lib.sweep.run import ATTEMPTS, Status, execute, killed, lost, read_status

PATIENCE = 30  # seconds to wait for the scheduler, and for a first worker
WATCH = "zsl_lib.sweep"  # name of a thread
GIVEN = 3  # times that a run is given to a cluster that gives it up


def local(runs: Sequence[Run], jobs: int) -> Iterator[Status]:
    """``jobs`` runs at a time in processes of this machine; one status a run, as they end.

    If the system kills a worker, loky gives up all that were at work, and does not say which one it was. The
    rest goes on in new processes. Those that were at work are run again at the end, each alone, and one
    whose process is killed again has failed.
    """
    waiting, alone = {run.name: run for run in runs}, []
    while waiting:
        try:
            for status in _pool(list(waiting.values()), jobs):
                del waiting[status.name]
                yield status
        except BrokenProcessPool as error:
            begun = [run for run in waiting.values() if _starts(run)]
            if not begun:  # processes that cannot even start: new ones would not help
                yield from (lost(run, error) for run in waiting.values())
                break
            alone += begun
            for run in begun:
                del waiting[run.name]
    for run in alone:
        try:
            yield from _pool([run], 1)
        except BrokenProcessPool:
            yield killed(run)


def _pool(runs: Sequence[Run], jobs: int) -> Iterator[Status]:
    # Never one worker: joblib would do the work in this process, and a run could take it down. What is
    # dispatched limits the runs at a time instead.
    parallel = Parallel(max(jobs, 2), pre_dispatch=jobs, batch_size=1, return_as="generator_unordered")
    yield from parallel(delayed(_execute_for)(os.getpid(), run) for run in runs)


def _execute_for(parent: int, run: Run) -> Status:
    """:func:`execute` in a process that ends with ``parent``, and its kernel with it.

    Else the runs of a sweep that was killed would go on beside those of the next one.
    """
    if all(thread.name != WATCH for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=[parent], name=WATCH, daemon=True).start()
    return execute(run)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _starts(run: Run) -> int:
    """How often this sweep has started the run."""
    status = read_status(run.folder)
    return status.attempts if status and status.sweep == run.sweep else 0


def cluster(runs: Sequence[Run], address: str) -> Iterator[Status]:
    """The runs on the workers of the Dask scheduler at ``address``; one status a run, as they end.

    Dask starts a run again elsewhere when its worker is lost, and gives it up after some losses. It counts
    them for runs that only waited for that worker too: those are given to it again. Its futures are used as
    they are, since joblib's Dask backend waits for ever for a run that was given up.

    Raises
    ------
    DataError: no scheduler there, or no worker. ImportError: Dask is not installed.
    """
    distributed = optional("distributed", "sweep")
    with _client(distributed, address) as client:
        given: Counter[str] = Counter()

        def submit(run: Run) -> Any:
            given[run.name] += 1
            return client.submit(execute, run, key=f"{run.name}-{given[run.name]}-{run.sweep}")

        futures = {submit(run): run for run in runs}
        ended = distributed.as_completed(futures, loop=client.loop)
        for future in ended:
            run = futures.pop(future)
            try:
                yield future.result()
            except distributed.KilledWorker as error:
                if _starts(run) >= ATTEMPTS:
                    yield killed(run)
                elif given[run.name] < GIVEN:
                    again = submit(run)
                    futures[again] = run
                    ended.add(again)
                else:
                    yield lost(run, error)
            except Exception as error:
                yield lost(run, error)


def _client(distributed: Any, address: str) -> Any:
    where = f"--dask {address}"
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        hint = "start one: dask scheduler --host 127.0.0.1 --port 8786 --no-dashboard"
        raise DataError(where, found=str(error), expected="a Dask scheduler", hint=hint) from error
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        client.close()
        hint = f"start some: dask worker {address} --nworkers 2 --nthreads 1"
        raise DataError(where, found="no worker", expected="one or more", hint=hint) from error
    return client
