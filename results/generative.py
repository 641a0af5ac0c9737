"""Generative methods on one protocol: ``python results/generative.py CUB100``.

Each method learns from all seen classes with the setting and for the number of epochs that
``results/convergence`` found best on validation, or (``--settings published``) with the hyper-parameters of
its own paper and the best number of epochs for these. Then it is tested once: T1 and AU, AS, H with 300
synthetic features a class, and T1 for other numbers of them (paper 1, Tables 1 and 2, Fig. 4). One record a
method and seed in ``results/generative``, or, of other widths (``--width-study``), in ``results/width``; a
record that is there is not made again.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from common import arguments, generative_parser, name_in_records, run_all, shared
from convergence import GRIDS, label

from zsl_lib import record
from zsl_lib.classify import FeatureModel, SoftmaxClassifier, SyntheticRecogniser, knn
from zsl_lib.data import ZSLDataset, load
from zsl_lib.errors import DataError
from zsl_lib.learn.methods import learner
from zsl_lib.metrics import evaluate, h_by_epoch, per_class_accuracy, predict
from zsl_lib.tuning import score

COUNTS = (1, 3, 10, 30, 100, 300, 1000, 2000)
"""Synthetic features a class, from one on."""


def chosen(dataset: str, method: str, settings: str, folder: Path) -> tuple[dict[str, Any], int]:
    """The setting and the number of epochs that are best on validation, on average over seeds.

    dataset: its name in records. settings: "tuned" (the whole grid) or "published" (its first entry).

    Raises
    ------
    DataError: no record of the method's convergence there.
    """
    curves = record.read_curves(folder, "convergence")
    grid = GRIDS[method][:1] if settings == "published" else GRIDS[method]
    labels = {label(method, setting): setting for setting in grid}
    here = curves[(curves["dataset"] == dataset) & curves["method"].isin(labels)] if len(curves) else curves
    if len(here) == 0:
        hint = f"python results/convergence.py {dataset} --methods {method}"
        raise DataError(
            f"{folder}/convergence", found=f"no {method} on {dataset}", expected="some", hint=hint
        )
    mean = here.assign(score=score(here)).groupby(["method", "epoch"])["score"].mean()
    name, epochs = mean.idxmax()
    return labels[name], int(epochs)


def fig4(model: FeatureModel, data: ZSLDataset, seed: int) -> pd.DataFrame:
    """T1 by 20-NN and by softmax from 1 … 2,000 synthetic features a class."""
    x, y = data.x(data.test_unseen), data.labels[data.test_unseen]
    rows = []
    for n in COUNTS:
        row: dict[str, float] = {"samples": n}
        classifiers = {"T1_knn": knn(min(20, n)), "T1_softmax": SoftmaxClassifier(seed=seed)}
        for column, classifier in classifiers.items():
            recogniser = SyntheticRecogniser(model, samples=n, zsl=classifier, seed=seed).remember(data)
            row[column] = per_class_accuracy(y, predict(recogniser, x, data.semantics, data.unseen))
        rows.append(row)
    return pd.DataFrame(rows)


def run(method: str, seed: int, options: argparse.Namespace) -> str:
    warnings.filterwarnings("ignore", "The number of unique classes")  # scikit-learn, at one feature a class
    raw = load(options.dataset, options.root, semantics=options.semantics)
    name = name_in_records(raw, options)
    kind = method if options.settings == "tuned" else f"{method}_published"
    kind += f"_hidden{options.hidden}" if options.width_study else ""
    experiment = "width" if options.width_study else "generative"
    target = options.results_dir / experiment / record.filename(name, kind, seed)
    if target.exists():
        return f"{target.name}: there already"
    setting, epochs = chosen(options.tuned_on or name, method, options.settings, options.results_dir)
    data, watch = raw.scaled(), record.Stopwatch()
    model = learner(method, shared(options) | {"epochs": epochs}, seed=seed, device=options.device, **setting)
    try:
        model.fit(data, progress=False)
    except ArithmeticError as error:
        return f"{target.name}: not written. {error}"
    recogniser = SyntheticRecogniser(model, samples=options.samples, seed=seed).remember(data)
    found = evaluate(recogniser, data)
    metrics = found._asdict() | {"H_selected_on_test": max(h_by_epoch(recogniser, data))}
    metrics["training_seconds"] = sum(entry["seconds"] for entry in model.history)
    given = {"name": method, "setting": setting, "samples": options.samples, "settings": options.settings}
    written = watch.record(
        experiment,
        raw,
        kind,
        semantics=options.semantics,
        seed=seed,
        parameters=asdict(model.config) | given,
        metrics=metrics,
        curves=fig4(model, data, seed),
        selection="validation",
        device=model.device,
        command=command(options, method, seed),
    ).write(options.results_dir)
    return f"{written.name}: T1 {found.T1:.1f}, H {found.H:.1f}, {watch.seconds():.0f} s"


def command(options: argparse.Namespace, method: str, seed: int) -> str:
    """What to type for this record alone."""
    tuned_on = f" --tuned-on {options.tuned_on}" if options.tuned_on else ""
    study = " --width-study" if options.width_study else ""
    settings = f"--settings {options.settings}{tuned_on}{study}"
    return f"python results/generative.py {arguments(options, method, seed)} {settings}"


def main() -> None:
    made = generative_parser(__doc__.splitlines()[0])
    made.add_argument("--settings", choices=["tuned", "published"], default="tuned")
    made.add_argument(
        "--tuned-on", help="take the settings found on this data set, e.g. CUB100 for CUB100+sent"
    )
    made.add_argument("--width-study", action="store_true", help="records by width, in results/width")
    made.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    options = made.parse_args()
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
