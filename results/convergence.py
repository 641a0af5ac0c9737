"""How fast each generative method learns: ``python results/convergence.py CUB100``.

Learns from the training classes of the tuning split, with every setting of the method's grid, and follows T1
and H on its validation classes, images of seen classes held out as well (paper 1, Fig. 3). One record a
setting and seed in ``results/convergence``, with the curve; a record that is there is not made again.
``results/generative.py`` takes its settings from these records.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import pandas as pd
from common import arguments, generative_parser, name_in_records, run_all, shared

from zsl_lib import record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import ZSLDataset, load
from zsl_lib.learn.learner import FeatureLearner
from zsl_lib.learn.methods import learner
from zsl_lib.metrics import evaluate
from zsl_lib.tuning import score

RATES = [{"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}]
GRIDS: dict[str, list[dict[str, Any]]] = {
    "abp": [{"sigma": 0.3}, {"sigma": 0.2}, {"sigma": 0.1, "step_size": 0.1}],
    "cvae": [{"sigma": 0.3}, {"sigma": 0.2}, {"sigma": 0.1}],
    "vzsl": [{"margin": 1.0}, {"margin": 0.1}, {"margin": 0.0}],
    "fgzsl": RATES,
    "gazsl": [{"lr": 1e-4}, {"lr": 3e-4, "batch_size": 64}, {"lr": 1e-3, "batch_size": 64}],
    "mcgzsl": RATES,
}
"""Three settings a method, the first published: the same effort for each. GAZSL's published batches of 1,024
make few steps of so few images."""

LOOKS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50)
"""Epochs after which validation is looked at."""


def label(method: str, setting: dict[str, Any]) -> str:
    """``fgzsl_lr0.001``."""
    return "_".join([method, *(f"{k}{v:g}" for k, v in setting.items())])


def follow(model: FeatureLearner, data: ZSLDataset, epochs: int, samples: int) -> pd.DataFrame:
    """Fit, and look at validation now and then: epoch, seconds of learning so far, and the accuracies."""
    rows = []

    def look(at: FeatureLearner) -> None:
        epoch = len(at.history)
        if epoch in LOOKS or epoch == epochs:
            found = evaluate(SyntheticRecogniser(at, samples=samples, seed=at.seed).remember(data), data)
            seconds = sum(entry["seconds"] for entry in at.history)
            rows.append({"epoch": epoch, "seconds": seconds} | found._asdict())

    model.fit(data, epochs=epochs, after_epoch=look, progress=False)
    return pd.DataFrame(rows)


def run(method: str, setting: dict[str, Any], seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics)
    name = name_in_records(raw, options)
    target = options.results_dir / "convergence" / record.filename(name, label(method, setting), seed)
    if target.exists():
        return f"{target.name}: there already"
    watch, given = record.Stopwatch(), shared(options) | {"epochs": options.epochs}
    model = learner(method, given, seed=seed, device=options.device, **setting)
    try:
        curve = follow(model, raw.tuning_split().scaled(), options.epochs, options.samples)
    except ArithmeticError as error:
        return f"{target.name}: not written. {error}"
    best = curve.loc[score(curve).idxmax()]
    written = watch.record(
        "convergence",
        raw,
        label(method, setting),
        semantics=options.semantics,
        seed=seed,
        parameters=asdict(model.config) | {"name": method, "setting": setting, "samples": options.samples},
        metrics=best[["epoch", "T1", "AU", "AS", "H"]].to_dict(),
        curves=curve,
        selection="validation",
        device=model.device,
        command=f"python results/convergence.py {arguments(options, method, seed)} --epochs {options.epochs}",
    ).write(options.results_dir)
    return (
        f"{written.name}: T1 {best.T1:.1f}, H {best.H:.1f} at epoch {best.epoch:.0f}, {watch.seconds():.0f} s"
    )


def main() -> None:
    made = generative_parser(__doc__.splitlines()[0])
    made.add_argument("--epochs", type=int, default=20)
    made.add_argument("--samples", type=int, default=100, help="synthetic features a class")
    options = made.parse_args()
    jobs = [(m, setting, seed) for seed in options.seeds for m in options.methods for setting in GRIDS[m]]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
