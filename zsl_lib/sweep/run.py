"""One run of a sweep, in the process of a worker: the notebook, its status, what is left if it fails.

A run's folder holds ``run.json`` (its status), ``results`` (its record), and ``notebook.ipynb`` if it is done
or ``failed.ipynb`` as far as it came.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.sweep.plan import OWN, Run, optional

ATTEMPTS = 2  # times that a run may start when it takes its worker down
START = 120  # seconds that a kernel may take to start; many start at once
LIBRARIES = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
STATUS, DONE, FAILED, RUNNING = "run.json", "notebook.ipynb", "failed.ipynb", "running.ipynb"


@dataclass
class Status:
    """What is known of a run; ``state`` is running, done or failed, ``attempts`` counts within one sweep."""

    name: str
    settings: dict[str, Any]
    digest: str
    sweep: str
    state: str = "running"
    attempts: int = 1
    host: str = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.state != "running"


def read_status(folder: Path) -> Status | None:
    """None where there is none. DataError: a file that is not a status."""
    path = folder / STATUS
    try:
        return Status(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        hint = "remove the file, and the run is done again"
        raise DataError(str(path), found=f"{error}", expected="a run's status", hint=hint) from error


def state_of(run: Run) -> str:
    """done, or why it is to be done: new, failed, interrupted, or changed (another notebook since)."""
    status = read_status(run.folder)
    if status is None:
        return "new"
    if status.digest != run.digest:
        return "changed"
    if status.state == "done":
        return "done" if (run.folder / DONE).exists() else "new"
    return "failed" if status.state == "failed" else "interrupted"


def execute(run: Run) -> Status:
    """Run the notebook and say how it ended. Whatever goes wrong is in the status; nothing is raised.

    A run that took its worker down starts once more, if asked again, and then counts as failed.
    """
    begin = time.perf_counter()
    status = Status(run.name, dict(run.settings), run.digest, run.sweep, host=socket.gethostname())
    try:
        _check_folders(run)
        before = read_status(run.folder)
        if before and before.sweep == run.sweep:
            if before.ended:  # its answer got lost together with its worker
                return before
            if before.attempts >= ATTEMPTS:
                return killed(run)
            status.attempts = before.attempts + 1
        _clear(run, keep_checkpoint=before is not None and before.digest == run.digest)
        _write(run.folder, status)
        _run_notebook(run)
        status.state, status.seconds = "done", round(time.perf_counter() - begin, 2)
        _write(run.folder, status)
        (run.folder / OWN["checkpoint"]).unlink(missing_ok=True)
        return status
    except Exception as error:
        status.seconds = round(time.perf_counter() - begin, 2)
        return _failed(run, status, describe(error, run))


def killed(run: Run) -> Status:
    """The status of a run whose worker was killed each time."""
    found = read_status(run.folder)
    status = found or Status(run.name, dict(run.settings), run.digest, run.sweep)
    return _failed(run, status, f"its worker was killed {status.attempts} times (out of memory?)")


def lost(run: Run, error: BaseException) -> Status:
    """The status of a run of which no worker gave an answer: its own, if it had come to an end."""
    found = read_status(run.folder)
    if found and found.sweep == run.sweep and found.ended:
        return found
    status = Status(run.name, dict(run.settings), run.digest, run.sweep, attempts=0)
    return _failed(run, status, f"no worker gave an answer: {type(error).__name__}: {error}")


def _failed(run: Run, status: Status, error: str) -> Status:
    """Keep what there is of the notebook, if it is whole, and write the status, if the disk takes it."""
    status.state, status.error = "failed", error
    try:
        (run.folder / DONE).unlink(missing_ok=True)
        _keep_whole(run.folder / RUNNING, run.folder / FAILED)
        _write(run.folder, status)
    except OSError:
        pass  # the caller reports it all the same, and a run without this status is done again
    return status


def _keep_whole(part: Path, target: Path) -> None:
    try:
        json.loads(part.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        part.unlink(missing_ok=True)
    else:
        os.replace(part, target)


def _write(folder: Path, status: Status) -> None:
    text = json.dumps(asdict(status), indent=1, ensure_ascii=False) + "\n"
    atomic_write(folder / STATUS, lambda file: file.write(text.encode()))


def _check_folders(run: Run) -> None:
    for path in (run.cwd, run.source):
        if not path.exists():
            hint = "every worker must see the folders of the sweep, on a shared disk"
            raise DataError(str(path), found=f"nothing on {socket.gethostname()}", expected="it", hint=hint)


def _clear(run: Run, *, keep_checkpoint: bool) -> None:
    """Remove what an earlier run left, so that none of it can pass for this one's."""
    run.folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(run.folder / OWN["results_dir"], ignore_errors=True)
    for name in (DONE, FAILED, RUNNING, *([] if keep_checkpoint else [OWN["checkpoint"]])):
        (run.folder / name).unlink(missing_ok=True)
    for path in run.folder.glob(f".{STATUS}.*"):  # from a worker that was killed while it wrote
        path.unlink()


def _run_notebook(run: Run) -> None:
    """papermill in this process, the cells in a kernel of this environment; ``DONE`` is whole or absent."""
    papermill = optional("papermill", "book")
    _environment(run.threads)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would log is in the status
    part = run.folder / RUNNING
    try:
        papermill.execute_notebook(
            run.source,
            part,
            dict(run.settings) | dict(run.own),
            kernel_name="python3",
            progress_bar=False,
            start_timeout=START,
            # Not papermill's cwd, which is the whole process's: a worker may have several threads.
            resources={"metadata": {"path": str(run.cwd)}},
            timeout_func=_time_left(run.timeout),
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(run.folder / DONE)) from error
        raise
    os.replace(part, run.folder / DONE)


def _time_left(seconds: float | None) -> Callable[[Any], float | None]:
    """A function of a cell: the seconds that are left, counted from the first cell."""
    end: list[float] = []

    def left(cell: Any) -> float | None:
        if seconds is None:
            return None
        if not end:
            end.append(time.monotonic() + seconds)
        return max(end[0] - time.monotonic(), 0.01)

    return left


def _environment(threads: int | None) -> None:
    """What the kernel inherits: the same as the Makefile's, and the number of threads."""
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix, "share", "jupyter"))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**32))
    if threads is not None:
        os.environ.update({f"{name}_THREADS": str(threads) for name in LIBRARIES})


def describe(error: Exception, run: Run) -> str:
    """One line about what stopped a run, and in which cell."""
    name = type(error).__name__
    cell = f"code cell [{_cells_begun(run.folder / RUNNING)}]"
    if name == "PapermillExecutionError":
        found: Any = error
        return _line(f"code cell [{found.exec_count}] raised {found.ename}: {found.evalue}")
    if name == "DeadKernelError":
        return f"{cell}: the kernel died (it was killed, for memory perhaps, or ended itself)"
    if name == "CellTimeoutError":
        return f"{cell}: no end within {run.timeout:g} s"
    return _line(str(error) if isinstance(error, OSError | DataError) and str(error) else f"{name}: {error}")


def _cells_begun(path: Path) -> int:
    """Code cells that have begun, by what papermill noted in the notebook; 0 if there is none."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return 0
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return sum(bool(cell["metadata"].get("papermill", {}).get("start_time")) for cell in code)


def _line(text: str) -> str:
    first = text.strip().splitlines()[0]
    return first if len(first) <= 300 else first[:297] + "..."
