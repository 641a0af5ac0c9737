"""What the length of the semantics does to ABP: ``python results/semantics_length.py CUB100 sent``.

Trains paper 1's generator on the tuning split with the class descriptions as the file holds them
(``abp_raw``) and brought to length 1 (``abp_unit``), and writes a record of each, with accuracies on
validation and the share of generator outputs that are 0.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

import torch

from zsl_lib import record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.files import project_root
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.metrics import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("semantics")
    parser.add_argument("--root", help="folder of the benchmarks; the environment's ZSL_DATA_DIR by default")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    raw = load(options.dataset, options.root, semantics=options.semantics)
    unit = raw.tuning_split().scaled()
    arms = {"abp_raw": replace(unit, semantics=raw.semantics), "abp_unit": unit}
    config = ABPConfig(epochs=options.epochs)
    for method, data in arms.items():
        watch = record.Stopwatch()
        model = ABP(config, seed=options.seed)
        accuracies = evaluate(SyntheticRecogniser(model, seed=options.seed).fit(data), data)
        rng = torch.Generator().manual_seed(options.seed)
        dead = (model.sample(data.semantics[data.unseen], 10, rng) == 0).float().mean().item()
        path = watch.record(
            "semantics_length",
            raw,
            method,
            seed=options.seed,
            parameters=asdict(config),
            metrics=accuracies._asdict() | {"zero_outputs": 100 * dead},
            selection="none",
            semantics=options.semantics,
            device=model.device,
            command=f"python results/semantics_length.py {options.dataset} {options.semantics}"
            f" --epochs {options.epochs} --seed {options.seed}",
        ).write(project_root() / "results")
        print(
            path.name, {k: round(v, 1) for k, v in accuracies._asdict().items()}, f"{100 * dead:.0f} % zero"
        )


if __name__ == "__main__":
    main()
