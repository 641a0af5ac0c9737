"""Attacks on images. Each sees a score function in pixel units and nothing else."""

from __future__ import annotations

from zsl_lib.attacks.fgsm import fgsm
from zsl_lib.attacks.noise import noise
from zsl_lib.attacks.pgd import pgd

__all__ = ["fgsm", "noise", "pgd"]
