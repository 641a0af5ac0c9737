"""The one exception that bad input raises, and the check of numbers that most of it needs."""

from __future__ import annotations

import math


class DataError(ValueError):
    """Input that cannot be used: names where it stands, what was found and what was expected.

    Parameters
    ----------
    where: the file, key or argument at fault, e.g. ``"CUB/att_splits.mat: att"``.
    found, expected: short descriptions for the message.
    hint: what to do about it, if there is something.
    """

    def __init__(self, where: str, *, found: object, expected: object, hint: str = "") -> None:
        super().__init__(f"{where}: found {found}, expected {expected}" + (f" ({hint})" if hint else ""))
        self.where, self.found, self.expected, self.hint = where, found, expected, hint

    def at(self, where: str) -> DataError:
        """The same error with another place, for a reader that knows the file behind a field."""
        return DataError(where, found=self.found, expected=self.expected, hint=self.hint)


def check_range(config: object, least: float, *names: str, whole: bool = False, above: bool = False) -> None:
    """Raise DataError unless each named field is finite and at least ``least``, or above it, and whole."""
    for name in names:
        value = getattr(config, name)
        kind = "a whole number" if whole else "a number"
        fits = isinstance(value, int) if whole else math.isfinite(value)
        if not fits or value < least or (above and value == least):
            expected = f"{kind} above {least}" if above else f"{kind} of {least} or more"
            raise DataError(f"{type(config).__name__}.{name}", found=value, expected=expected)
