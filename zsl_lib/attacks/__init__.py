"""Attacks on images. Each sees a score function in pixel units and nothing else.

``attack(scores, x, y, *, radius, generator=None, ...) -> x_adv`` with ``scores(x) -> [n, C]``: x are float
images in pixels of [0, 255], y the columns of their classes. Which columns there are is the search space.

:mod:`zsl_lib.attacks.prototypes` attacks the other side, the table of class descriptions.
"""

from __future__ import annotations

from zsl_lib.attacks import prototypes
from zsl_lib.attacks.auto import autoattack
from zsl_lib.attacks.common import Counted
from zsl_lib.attacks.cw import cw
from zsl_lib.attacks.deepfool import deepfool
from zsl_lib.attacks.fgsm import fgsm
from zsl_lib.attacks.noise import noise
from zsl_lib.attacks.pgd import pgd
from zsl_lib.attacks.wrm import wrm
from zsl_lib.attacks.zoo import zoo

__all__ = ["Counted", "autoattack", "cw", "deepfool", "fgsm", "noise", "pgd", "prototypes", "wrm", "zoo"]
