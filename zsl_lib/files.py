"""Files that are whole or absent, and the project's root."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

STALE = 3600.0  # seconds without a byte after which a temporary file is one of a process that was killed


def atomic_write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then move it there: never a half-written file.

    A process that is killed leaves its temporary file; a later call removes it, when it is ``STALE``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(FileNotFoundError):  # another process is doing the same
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def project_root() -> Path:
    """The folder that holds ``_toc.yml``, from here upwards; the current folder if there is none."""
    here = Path.cwd().resolve()
    return next((p for p in (here, *here.parents) if (p / "_toc.yml").exists()), here)
