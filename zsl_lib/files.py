"""Files that are whole or absent, arrays that are larger than memory, and the project's root."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

STALE = 3600.0  # seconds without a byte after which a temporary file is one of a process that was killed


def atomic_write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then move it there: never a half-written file.

    A process that is killed leaves its temporary file; a later call removes it, when it is ``STALE``.
    Raises whatever ``write`` raises; an OSError without a file name, as a full disk gives, gets ``path``.
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
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_npy(path: Path, shape: tuple[int, ...], blocks: Iterable[Tensor]) -> Tensor:
    """Write float32 blocks of rows, ``shape`` in all, as one .npy; the array, mapped into memory.

    Writing into what is returned changes memory, never the file.
    """
    import torch  # here, because it takes seconds and the workers of a sweep do without

    header = {"descr": "<f4", "fortran_order": False, "shape": shape}

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block.numpy(), dtype="<f4").data)

    atomic_write(path, write)
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def project_root() -> Path:
    """The folder that holds ``_toc.yml``, from here upwards; the current folder if there is none."""
    here = Path.cwd().resolve()
    return next((p for p in (here, *here.parents) if (p / "_toc.yml").exists()), here)
