"""Settings for what learns against poison: ``python results/poisoning_search.py hangul``.

The grids of :mod:`poisoning`'s methods on the tuning split. What counts is the paper's own measure of both
worlds (§4.2), the harmonic means of clean and attacked accuracies: the mean of HT1 and HHM under IFGSM at
the largest of the paper's radii, with a table for each query and with one table for all. Every method is
chosen by it, whether or not it defends itself. One record a search in ``results/poisoning_search``; a search
that was interrupted goes on.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from common import run_all, search_once, semantics_words
from poisoning import POINTS, THREATS, learned, poisoning_parser, trainable

from zsl_lib.attacks.prototypes import ifgsm
from zsl_lib.data import ZSLDataset, load
from zsl_lib.poison import PoisonEvaluation
from zsl_lib.robust import with_clean

NETWORK = {"lr": [3e-4, 1e-3, 3e-3, 1e-2], "weight_decay": [1e-5, 1e-4, 1e-3, 1e-2]}
GRIDS = {
    "dem_adv": {"lam": [3e-4, 1e-3, 3e-3], "epochs": [10, 20, 40, 80]},
    "ldf_adv": {"weight_decay": [1e-4, 1e-3, 1e-2, 1e-1], "lam": [0.01, 0.1, 1.0]},
}
"""Of DEM and LDF as in ``results/compatibility_search``; all others have that of relation networks."""
SEARCHED = list(dict.fromkeys(method.setting_of for method in trainable().values()))


def grid(method: str) -> dict[str, list[float]]:
    return GRIDS.get(method, NETWORK)


def measure(model: Any, dataset: ZSLDataset, images: int) -> dict[str, float]:
    """Clean and attacked accuracies of validation images, their harmonic means, and the mean of these."""
    evaluation = PoisonEvaluation(model, dataset, images=images, separable=True)
    clean = evaluation.run().accuracies
    radius = POINTS[2] * dataset.semantics.shape[1] ** 0.5
    found: dict[str, float] = clean._asdict()
    for threat, which in THREATS.values():
        attacked = evaluation.run(
            ifgsm, threat=threat, which=which, radius=radius, attribute_scale=dataset.points
        )
        found |= {f"{name}_{threat}": value for name, value in with_clean(clean, attacked.accuracies).items()}
    means = [value for name, value in found.items() if name.startswith("H") and "_" in name]
    return found | {"score": sum(means) / len(means)}


def run(method: str, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics)
    words = [options.dataset, *semantics_words(options), f"--methods {method} --images {options.images}"]
    return search_once(
        "poisoning_search",
        method,
        raw,
        options,
        partial(learned, method, options.dataset, raw.semantics.shape[1], device=options.device),
        grid(method),
        command=f"python results/poisoning_search.py {' '.join(words)}",
        parameters={"images": options.images, "points": POINTS[2]},
        measure=partial(measure, images=options.images),
    )


def main() -> None:
    options = poisoning_parser(__doc__.splitlines()[0], SEARCHED).parse_args()
    run_all(run, [(method,) for method in options.methods], options)


if __name__ == "__main__":
    main()
