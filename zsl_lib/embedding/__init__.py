"""Compatibility models: score(x, c) learned directly, one file a method.

:func:`available` finds the methods by their files.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from zsl_lib.embedding.base import CompatibilityModel, GradientModel
from zsl_lib.errors import DataError

__all__ = ["CompatibilityModel", "GradientModel", "available", "is_random", "model"]


@cache
def available() -> dict[str, type[CompatibilityModel]]:
    """The methods of this folder by the names of their files, in alphabetical order.

    A file counts if it defines a :class:`CompatibilityModel` that is not abstract; it defines one at most.
    """
    found: dict[str, type[CompatibilityModel]] = {}
    for name in sorted(module.name for module in iter_modules(__path__)):
        module = import_module(f"{__name__}.{name}")
        here = [value for value in vars(module).values() if _is_method(value, module.__name__)]
        if len(here) > 1:
            names = ", ".join(method.__name__ for method in here)
            raise DataError(f"{module.__name__}", found=names, expected="one method a file")
        if here:
            found[name] = here[0]
    return found


def model(name: str) -> type[CompatibilityModel]:
    """The method of that name.

    Raises
    ------
    DataError: there is none.
    """
    if name not in available():
        raise DataError("method", found=name, expected=f"one of {', '.join(available())}")
    return available()[name]


def is_random(name: str) -> bool:
    """Whether the method takes a seed: others give the same at each fit."""
    return "seed" in inspect.signature(model(name)).parameters


def _is_method(value: object, module: str) -> bool:
    is_model = isinstance(value, type) and issubclass(value, CompatibilityModel)
    return is_model and value.__module__ == module and not inspect.isabstract(value)
