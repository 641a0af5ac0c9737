"""What the coding exercises of the book check themselves with: your value beside the expected one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SHOWN = 4  # numbers of an array that are printed


def compare(name: str, yours: object, expected: object, tolerance: float = 1e-6) -> None:
    """Print both values, and raise AssertionError unless they agree.

    Parameters
    ----------
    name: what is compared, for the line and the message.
    yours, expected: numbers, or tensors, arrays and lists of numbers, of one shape.
    tolerance: the largest difference that passes, as a share of the expected value where that is above 1.

    Raises
    ------
    AssertionError: if ``yours`` holds no numbers, has another shape, is not finite or differs by more.
    """
    if yours is None:
        raise AssertionError(f"{name}: found None, expected a value; does your function return one?")
    found, right = numbers(name, yours), numbers(name, expected)
    print(f"{name}\n  your value      {shown(found)}\n  expected value  {shown(right)}")
    if found.shape != right.shape:
        raise AssertionError(f"{name}: found the shape {found.shape}, expected {right.shape}")
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        off = np.abs(found - right)
    wrong = ~(off <= tolerance * np.maximum(1, np.abs(right)))  # true for NaN, too
    if wrong.any():
        worst = off[wrong].max()
        raise AssertionError(
            f"{name}: found {shown(found)}, expected {shown(right)}:"
            f" {wrong.sum()} of {wrong.size} differ, by up to {worst:.3g}"
        )


def numbers(name: str, value: object) -> NDArray[np.float64]:
    """The value as an array of floats; AssertionError if it is none."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise AssertionError(f"{name}: found a {kind}, expected numbers of one shape ({error})") from error


def shown(values: NDArray[np.float64]) -> str:
    """At most the first four numbers, six digits each, and the shape of what is longer."""
    # what is below 1e-9 is rounding, and differs between machines
    first = [f"{round(number, 9) + 0.0:.6g}" for number in values.flat[:SHOWN].tolist()]
    if values.ndim == 0:
        return first[0]
    if values.size <= SHOWN and values.ndim == 1:
        return f"[{', '.join(first)}]"
    more = ", ..." if values.size > SHOWN else ""
    return f"[{', '.join(first)}{more}] ({' × '.join(map(str, values.shape))})"
