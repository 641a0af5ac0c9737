"""Compatibility models: score(x, c) learned directly, one file a method."""

from zsl_lib.embedding.eszsl import ESZSL

__all__ = ["ESZSL"]
