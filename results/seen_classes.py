"""What more seen classes buy: ``python results/seen_classes.py hangul``.

The unseen classes stay; of the seen ones a random subset, drawn by the seed, is learned from (paper 1,
§5.5, Fig. 5). Subsets are nested: more classes are always more of the same. One record a method, number of
classes and seed in ``results/seen_classes``; a record that is there is not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch
from common import arguments, generative_parser, name_in_records, run_all, shared
from generative import chosen

from zsl_lib import record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.learn.methods import learner
from zsl_lib.metrics import evaluate


def run(method: str, count: int, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics)
    name = name_in_records(raw, options)
    target = options.results_dir / "seen_classes" / record.filename(name, f"{method}_{count}", seed)
    if target.exists():
        return f"{target.name}: there already"
    setting, epochs = chosen(name, method, "tuned", options.results_dir)
    order = raw.seen[torch.randperm(len(raw.seen), generator=torch.Generator().manual_seed(seed))]
    data, watch = raw.with_seen(order[:count]).scaled(), record.Stopwatch()
    model = learner(method, shared(options) | {"epochs": epochs}, seed=seed, device=options.device, **setting)
    try:
        model.fit(data, progress=False)
    except ArithmeticError as error:
        return f"{target.name}: not written. {error}"
    found = evaluate(SyntheticRecogniser(model, samples=options.samples, seed=seed).remember(data), data)
    written = watch.record(
        "seen_classes",
        raw,
        f"{method}_{count}",
        semantics=options.semantics,
        seed=seed,
        parameters=asdict(model.config) | {"name": method, "seen": count, "samples": options.samples},
        metrics=found._asdict() | {"seen": count},
        selection="validation",
        device=model.device,
        command=f"python results/seen_classes.py {arguments(options, method, seed)} --counts {count}",
    ).write(options.results_dir)
    return f"{written.name}: AU {found.AU:.1f}, AS {found.AS:.1f}, {watch.seconds():.0f} s"


def main() -> None:
    made = generative_parser(__doc__.splitlines()[0])
    made.add_argument("--counts", type=int, nargs="+", default=[20, 40, 60, 95], help="of seen classes")
    made.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    options = made.parse_args()
    jobs = [(m, count, seed) for seed in options.seeds for m in options.methods for count in options.counts]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
