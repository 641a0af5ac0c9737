"""Does a defence of one input help the other? ``python results/crossed.py hangul``.

Relation networks that learn from pixels with the backbone, for the same number of epochs: clean (Baseline),
by Eq. 4 against attacks on images, by Eq. 5 against poisoned tables, and by both in one objective
(:class:`zsl_lib.learn.poisoned.CombinedLearner`, which is not the paper's). Each is then attacked through its
images and through its table. Settings are those that ``results/robustness_search`` found on validation: the
Baseline's where no images are attacked in training, ATZSL's where they are (on features, ``results/
poisoning_search`` found the same for the Baseline and for Eq. 5). One record a method and seed in
``results/crossed``; a record that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from common import best_setting, name_in_records, run_all, semantics_words
from robustness import EPOCHS, MIDDLE, parse, pixel_parser

from zsl_lib import record
from zsl_lib.attacks import pgd
from zsl_lib.attacks.prototypes import ifgsm
from zsl_lib.data import ZSLDataset, load
from zsl_lib.learn.adversarial import AdversarialLearner
from zsl_lib.learn.poisoned import CombinedLearner, PoisonedLearner
from zsl_lib.learn.relation import RelationLearner
from zsl_lib.models.backbone import backbone
from zsl_lib.poison import PoisonEvaluation
from zsl_lib.robust import Attacked, EndToEnd, RobustEvaluation, worst_case

METHODS: dict[str, tuple[type, str]] = {
    "baseline": (RelationLearner, "baseline"),
    "eq4": (AdversarialLearner, "atzsl"),
    "eq5": (PoisonedLearner, "baseline"),
    "both": (CombinedLearner, "atzsl"),
}
"""The learner, and whose setting it takes."""
POINTS = 3.0
"""The paper's largest radius on a table, in points an attribute."""


def learned(method: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Any:
    cls, setting_of = METHODS[method]
    dataset = name_in_records(raw, options)
    given = best_setting("robustness_search", dataset, setting_of, options, script="robustness_search")
    given |= {"epochs": EPOCHS} | json.loads(options.set)
    if issubclass(cls, PoisonedLearner):
        given |= {"radius": POINTS * raw.semantics.shape[1] ** 0.5}
    where = {"seed": seed, "device": options.device, "backbone": backbone(options.backbone)}
    return cls(cls.Config(**given), **where).fit(replace(raw, features=None))


def measure(model: Any, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """T1, AU, AS and H of attacked test images: clean, and the worst of IFGSM and a search on the margin.

    ``images``: ρ = 4 of 255. ``own``, ``universal``: tables of three points an attribute, a table for each
    image in which its own row moves, and one table for all.
    """
    where: dict[str, Any] = {"images": options.images, "seed": seed}
    pixels = RobustEvaluation(
        EndToEnd(model, raw.semantics), raw, device=model.device, batch=options.batch, **where
    )
    tables = PoisonEvaluation(model, replace(raw, features=None), **where)
    steep = partial(ifgsm, direction="gradient")
    ball = {"radius": POINTS * raw.semantics.shape[1] ** 0.5, "attribute_scale": raw.points}
    attacks = [pgd, partial(pgd, steps=20, loss="margin")]
    found: dict[str, list[Attacked]] = {
        "clean": [pixels.run()],
        "images": [pixels.run(attack, radius=MIDDLE) for attack in attacks],
    }
    threats: dict[str, dict[str, Any]] = {
        "own": {"threat": "per_image", "which": "own unseen"},
        "universal": {"threat": "universal"},
    }
    for name, threat in threats.items():
        found[name] = [tables.run(partial(steep, loss=loss), **threat, **ball) for loss in ("ce", "margin")]
    metrics: dict[str, float] = {}
    for name, runs in found.items():
        if name == "universal":  # the worse of two tables, not of each image
            least = {m: min(getattr(run.accuracies, m) for run in runs) for m in ("T1", "H")}
        else:
            least = {m: getattr(worst_case(runs).accuracies, m) for m in ("T1", "H")}
        metrics |= {f"{m}_{name}": value for m, value in least.items()}
    return metrics


def run(method: str, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics, images=True)
    target = options.results_dir / "crossed" / record.filename(name_in_records(raw, options), method, seed)
    if target.exists():
        return f"{target.name}: there already"
    watch = record.Stopwatch()
    model = learned(method, raw, seed, options)
    training = watch.seconds()
    metrics = {"training_seconds": training} | measure(model, raw, seed, options)
    words = [options.dataset, *semantics_words(options), f"--methods {method} --seeds {seed}"]
    words += [f"--images {options.images} --backbone {options.backbone}"]
    words += [f"--set '{options.set}'"] if options.set != "{}" else []
    given = {"backbone": options.backbone, "images": options.images, "points": POINTS, "pixels": MIDDLE}
    watch.record(
        "crossed",
        raw,
        method,
        semantics=options.semantics,
        seed=seed,
        parameters=asdict(model.config) | given,
        metrics=metrics,
        selection="validation",
        device=torch.device(model.device),
        command=f"python results/crossed.py {' '.join(words)}",
    ).write(options.results_dir)
    found = ", ".join(
        f"{name} {metrics[f'T1_{name}']:.1f}" for name in ("clean", "images", "own", "universal")
    )
    return f"{target.name}: T1 {found}; {watch.seconds():.0f} s"


def main() -> None:
    options = parse(pixel_parser(__doc__.splitlines()[0], METHODS))
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
