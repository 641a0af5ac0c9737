"""The one exception that bad input raises."""

from __future__ import annotations


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
