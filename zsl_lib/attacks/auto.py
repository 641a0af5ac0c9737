"""AutoAttack, the outside judge: its authors' own program (Croce and Hein 2020), on a score function.

APGD on the cross-entropy, targeted APGD on the DLR loss, targeted FAB and the Square attack, which needs no
gradients; each is tried on the images that the former ones left. The package ``pyautoattack`` (MIT) is
imported only here.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from zsl_lib.attacks.common import (
    PIXELS,
    Bounds,
    Norm,
    Scores,
    check_choice,
    check_inputs,
    checked_scores,
    per_image,
    project,
)
from zsl_lib.errors import DataError

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
NEEDS = {"apgd-t": 4, "apgd-dlr": 3}  # classes: the DLR loss looks at the best three or four scores


def autoattack(
    scores: Scores,
    x: Tensor,
    y: Tensor,
    *,
    radius: float,
    norm: Norm = "linf",
    attacks: tuple[str, ...] = STANDARD,
    queries: int = 5000,
    steps: int = 100,
    batch: int = 250,
    bounds: Bounds = PIXELS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attacked images, as x: those that an attack has fooled, and x itself where none has.

    With fewer than four classes, targeted APGD is replaced by APGD on the untargeted DLR loss (three) or left
    out (two). Defaults are the standard version; the paper's accuracy after attack is that under all of them.

    Parameters
    ----------
    scores, x, y, bounds: as in :func:`zsl_lib.attacks.pgd`; images ``[n, channels, H, W]``.
    radius: one number, in pixels.
    attacks: of ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab``, ``fab-t``, ``square``.
    queries, steps: of Square, and of each of the others; 5000 and 100 in the standard version.
    generator: gives the seed; seed 0 if None. The global random state is as before.

    Raises
    ------
    DataError: as :func:`zsl_lib.attacks.pgd`; images without height and width; no ``pyautoattack``.
    """
    check_inputs(x, y, bounds)
    check_choice("norm", norm, ("linf", "l2"))
    rho = per_image("radius", float(radius), x)
    if x.ndim != 4:
        raise DataError("x", found=f"shape {list(x.shape)}", expected="[n, channels, H, W]")
    with torch.no_grad():
        n_classes = checked_scores(scores, x[:1], y[:1]).shape[1]
    if not radius:
        return x.clone()
    low, span = bounds[0], bounds[1] - bounds[0]
    judge = _judge(lambda part: scores(low + span * part), radius / span, norm, x.device, generator)
    judge.attacks_to_run = _possible(attacks, n_classes)
    judge.square.n_queries = queries
    for part in (judge.apgd, judge.apgd_targeted, judge.fab):
        part.n_iter, part.n_restarts = steps, 1
    judge.apgd_targeted.n_target_classes = judge.fab.n_target_classes = min(9, n_classes - 1)
    devices = [x.device] if x.is_cuda else []
    unit = (x - low) / span
    with torch.random.fork_rng(devices), torch.enable_grad():  # it seeds the global generators
        found, _ = judge.run_standard_evaluation(unit, y, batch_size=batch)
    moved = x + span * (found.detach() - unit)  # exactly x where nothing was found
    return project(moved, x, rho, norm, bounds)


def _possible(attacks: tuple[str, ...], n_classes: int) -> list[str]:
    """The attacks, with targeted APGD made untargeted or left out where there are too few classes."""
    possible = [
        "apgd-dlr" if attack == "apgd-t" and n_classes < NEEDS["apgd-t"] else attack for attack in attacks
    ]
    return [attack for attack in possible if n_classes >= NEEDS.get(attack, 2)]


def _judge(scores, radius, norm, device, generator):  # type: ignore[no-untyped-def]
    """The package's AutoAttack, silent but for warnings."""
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        hint = "pip install pyautoattack"
        raise DataError("autoattack", found=str(error), expected="pyautoattack", hint=hint) from error
    logging.getLogger("auto-attack").setLevel(logging.WARNING)
    seed = 0 if generator is None else int(torch.randint(2**31, (1,), generator=generator).item())
    names = {"linf": "Linf", "l2": "L2"}
    judge = AutoAttack(scores, device=device, eps=radius, norm=names[norm], seed=seed)
    judge.version = "custom"  # attacks are chosen here
    return judge
