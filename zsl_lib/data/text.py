"""Text files of other people's making."""

from __future__ import annotations

from pathlib import Path

from zsl_lib.errors import DataError


def read_lines(path: Path, expected: str = "text in UTF-8") -> list[str]:
    """The lines of a file in UTF-8; DataError if it is none, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # no UTF-8, or a name that no file can have
        raise DataError(f"{path}", found=f"no text ({error})", expected=expected) from None
