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

from common import name_in_records, run_all
from robustness import FROM_PIXELS, MIDDLE, from_pixels, parse, pixel_parser

from zsl_lib import record, tuning
from zsl_lib.attacks import pgd
from zsl_lib.data import ZSLDataset, load
from zsl_lib.robust import EndToEnd, RobustEvaluation, with_clean

NETWORK = {"backbone_lr": [0.1, 1.0], "weight_decay": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]}
IMAGE_NETWORK = {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}
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
    target = (
        options.results_dir / "robustness_search" / record.filename(name_in_records(raw, options), method, 0)
    )
    if target.exists():
        return f"{target.name}: there already"
    log, watch = target.with_suffix(".jsonl"), record.Stopwatch()
    tried = tuning.search(
        partial(from_pixels, method, options),
        grid(method),
        replace(raw, features=None),
        "score",
        measure=partial(measure, images=options.images, batch=options.batch),
        log=log,
    )
    rows = tried.astype(object).where(tried.notna(), None).to_dict("records")
    given = {"backbone": options.backbone, "images": options.images, "radius": MIDDLE}
    watch.record(
        "robustness_search",
        raw,
        method,
        semantics=options.semantics,
        seed=0,
        parameters=given | {"grid": grid(method), "tried": rows},
        metrics=tried.drop(columns=list(grid(method))).loc[0].to_dict(),
        selection="validation",
        command=command(options, method),
    ).write(options.results_dir)
    log.unlink()
    return f"{target.name}: {rows[0]}; {watch.seconds():.0f} s"


def command(options: argparse.Namespace, method: str) -> str:
    semantics = "" if options.semantics == "att" else f" --semantics {options.semantics}"
    chosen = f" --images {options.images} --backbone {options.backbone}"
    chosen += f" --set '{options.set}'" if options.set != "{}" else ""
    return f"python results/robustness_search.py {options.dataset}{semantics} --methods {method}{chosen}"


def main() -> None:
    options = parse(pixel_parser(__doc__.splitlines()[0], SEARCHED))
    run_all(run, [(method,) for method in options.methods], options)


if __name__ == "__main__":
    main()
