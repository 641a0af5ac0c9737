"""Data sets: one container, and readers for the embedded and the published ones."""

from zsl_lib.data.dataset import ZSLDataset

__all__ = ["ZSLDataset"]
