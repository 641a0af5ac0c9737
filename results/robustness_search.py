"""Settings of what learns from pixels, chosen on validation: ``python results/robustness_search.py hangul``.

The grids of :mod:`robustness`'s methods on the tuning split, from a backbone that was trained on its training
classes alone. What counts is the paper's own measure of both worlds (§4.2), the harmonic means of clean and
attacked accuracies: the mean of HT1 and HHM under IFGSM at the middle radius. Every method is chosen by it,
whether or not it defends itself. One record a search in ``results/robustness_search``; a search that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

from common import run_all, search_once, semantics_words
from robustness import FROM_PIXELS, MIDDLE, from_pixels, parse, pixel_parser

from zsl_lib.attacks import pgd
from zsl_lib.data import ZSLDataset, load
from zsl_lib.robust import EndToEnd, RobustEvaluation, with_clean

NETWORK = {"backbone_lr": [0.1, 1.0], "weight_decay": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]}
IMAGE_NETWORK = {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
SEARCHED = list(dict.fromkeys(method.setting_of for method in FROM_PIXELS.values()))


def grid(method: str) -> dict[str, list[float]]:
    return IMAGE_NETWORK if method.startswith(("dem", "ldf")) else NETWORK


def measure(model: Any, dataset: ZSLDataset, images: int, batch: int) -> dict[str, float]:
    """Clean and attacked accuracies of validation images, their harmonic means, and the mean of these."""
    target, where = EndToEnd(model, dataset.semantics), {"images": images, "batch": batch}
    evaluation = RobustEvaluation(target, dataset, device=model.device, **where)
    clean, attacked = evaluation.run().accuracies, evaluation.run(pgd, radius=MIDDLE).accuracies
    both = with_clean(clean, attacked)
    found = clean._asdict() | {f"{name}_ifgsm": value for name, value in attacked._asdict().items()}
    return found | both | {"score": sum(both.values()) / 2}


def run(method: str, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics, images=True)
    given = {"backbone": options.backbone, "images": options.images, "radius": MIDDLE}
    return search_once(
        "robustness_search",
        method,
        raw,
        options,
        partial(from_pixels, method, options),
        grid(method),
        command=command(options, method),
        on=replace(raw, features=None),
        parameters=given,
        measure=partial(measure, images=options.images, batch=options.batch),
    )


def command(options: argparse.Namespace, method: str) -> str:
    words = [options.dataset, *semantics_words(options), f"--methods {method}"]
    words += [f"--images {options.images} --backbone {options.backbone}"]
    words += [f"--set '{options.set}'"] if options.set != "{}" else []
    return f"python results/robustness_search.py {' '.join(words)}"


def main() -> None:
    options = parse(pixel_parser(__doc__.splitlines()[0], SEARCHED))
    run_all(run, [(method,) for method in options.methods], options)


if __name__ == "__main__":
    main()
