"""Compatibility models on one protocol: ``python results/compatibility.py CUB100``.

Each method of ``zsl_lib.embedding`` tries its grid on the tuning split and is chosen by the mean of T1 and H
there; the log of the search is a record in ``results/compatibility_search``. Then it learns from all seen
classes with what was chosen and is tested once: one record a method and seed in ``results/compatibility``
(one in all for a method without randomness). What is there is not made again; a search that was interrupted
goes on.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from common import best_setting, name_in_records, parser, run_all, search_once, semantics_words

from zsl_lib import record
from zsl_lib.calibration import Calibrated, ausuc, best, seen_unseen_curve
from zsl_lib.data import ZSLDataset, load
from zsl_lib.embedding import available, is_random
from zsl_lib.metrics import evaluate, hubness

EXPERIMENT = "compatibility_search"


def parse() -> argparse.Namespace:
    return parser(__doc__.splitlines()[0], available()).parse_args()


def command(options: argparse.Namespace, method: str, seeds: str) -> str:
    words = [options.dataset, *semantics_words(options), f"--methods {method}{seeds}"]
    return f"python results/compatibility.py {' '.join(words)}"


def choose(method: str, raw: ZSLDataset, options: argparse.Namespace) -> dict[str, Any]:
    """The setting that is best on validation, by the record of the search, made if it is not there."""
    made = available()[method]
    search_once(EXPERIMENT, method, raw, options, made, made.GRID, command=command(options, method, ""))
    name = name_in_records(raw, options)
    return best_setting(EXPERIMENT, name, method, options, script="compatibility")


def run(method: str, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics)
    setting = choose(method, raw, options)
    seeds = options.seeds if is_random(method) else [0]
    lines = [test(method, setting, seed, raw, options) for seed in seeds]
    return "\n".join(lines)


def test(
    method: str, setting: dict[str, Any], seed: int, raw: ZSLDataset, options: argparse.Namespace
) -> str:
    name = name_in_records(raw, options)
    target = options.results_dir / "compatibility" / record.filename(name, method, seed)
    if target.exists():
        return f"{target.name}: there already"
    make = partial(available()[method], **setting, **({"seed": seed} if is_random(method) else {}))
    watch = record.Stopwatch()
    tuning_split, data = raw.tuning_split().scaled(), raw.scaled()
    gamma = best(seen_unseen_curve(make().fit(tuning_split), tuning_split))
    model = make().fit(data)
    metrics = measure(model, data, gamma)
    watch.record(
        "compatibility",
        raw,
        method,
        semantics=options.semantics,
        seed=seed,
        parameters=setting | {"gamma_of_calibration": gamma},
        metrics=metrics,
        selection="validation",
        command=command(options, method, f" --seeds {seed}"),
    ).write(options.results_dir)
    return f"{target.name}: T1 {metrics['T1']:.1f}, H {metrics['H']:.1f}, {watch.seconds():.0f} s"


def measure(model: Any, data: ZSLDataset, gamma: float) -> dict[str, float]:
    """T1, AU, AS, H; the last three with calibrated stacking; AUSUC; hubness of unseen classes."""
    calibrated = evaluate(Calibrated(model, data.semantics[data.seen], gamma), data)._asdict()
    scores = model.scores(data.x(data.test_unseen), data.semantics[data.unseen])
    return (
        evaluate(model, data)._asdict()
        | {f"{key}_calibrated": calibrated[key] for key in ("AU", "AS", "H")}
        | {"AUSUC": ausuc(seen_unseen_curve(model, data)), "hubness": hubness(scores)}
    )


def main() -> None:
    options = parse()
    run_all(run, [(method,) for method in options.methods], options)


if __name__ == "__main__":
    main()
