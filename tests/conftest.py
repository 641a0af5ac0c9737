"""Fixtures of every test folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real benchmark data; skips where ``ZSL_DATA_DIR`` does not point at any."""
    value = os.environ.get("ZSL_DATA_DIR")
    if not value:
        pytest.skip("ZSL_DATA_DIR is not set")
    root = Path(value).expanduser()
    if not root.is_dir():
        pytest.skip(f"ZSL_DATA_DIR={value} is no folder")
    return root.resolve()


@pytest.fixture(scope="session")
def real(data_root: Path) -> Callable[[str], Path]:
    """``real("CUB100")`` is that folder of the real data; skips where it is absent."""

    def folder(name: str) -> Path:
        path = data_root / name
        if not path.is_dir():
            pytest.skip(f"ZSL_DATA_DIR holds no {name}")
        return path

    return folder
