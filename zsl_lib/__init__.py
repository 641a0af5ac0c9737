"""A small library for zero-shot learning: the code that the book derives, runs and replicates."""

from zsl_lib.errors import DataError

__all__ = ["DataError"]
