"""What inference buys: ``python results/arms.py CUB100 --epochs 10``.

Trains every arm of :mod:`zsl_lib.learn.arms` (the paper's ABP, the released code's latents, controls) on the
same data with the same budget, and writes one record an arm and seed to ``results/arms``. A record that
is there is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from common import run_all

from zsl_lib import density, record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import ZSLDataset, load
from zsl_lib.files import project_root
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.arms import ARMS, arm
from zsl_lib.metrics import evaluate, h_by_epoch


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--root", help="folder of the benchmarks; the environment's ZSL_DATA_DIR by default")
    parser.add_argument("--epochs", type=int, default=ABPConfig.epochs)
    parser.add_argument("--hidden", type=int, default=ABPConfig.hidden)
    parser.add_argument("--sigma", type=float, default=ABPConfig.sigma)
    parser.add_argument("--step-size", type=float, default=ABPConfig.step_size)
    parser.add_argument("--lr", type=float, default=ABPConfig.lr, help="but for program, which has its own")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="likewise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    parser.add_argument("--precision", default="float32", help="of inference: float32 or bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return parser.parse_args()


def measure(model: ABP, dataset: ZSLDataset, samples: int, seed: int) -> dict[str, float]:
    """Recognition, likelihood of held-out examples, and how wide and well inferred the latents are."""
    recogniser = SyntheticRecogniser(model, samples=samples, seed=seed).remember(dataset)
    seen = density.held_out(dataset.test_seen, 50)
    unseen = density.held_out(dataset.test_unseen, 50)
    train = density.held_out(dataset.trainval, 20)
    sigma, dims = density.fitted_sigma(model, dataset, train), dataset.features.shape[1]
    found = evaluate(recogniser, dataset)._asdict()
    found["H_selected_on_test"] = max(h_by_epoch(recogniser, dataset))
    found["nats_seen"] = density.mean_log_likelihood(model, dataset, seen) / dims
    for name, rows in {"seen": seen, "unseen": unseen}.items():
        found[f"nats_{name}_fitted"] = density.mean_log_likelihood(model, dataset, rows, sigma=sigma) / dims
    found["spread_seen"] = density.spread(model, dataset, dataset.test_seen)
    found["spread_unseen"] = density.spread(model, dataset, dataset.test_unseen)
    last = model.history[-1] if model.history else {"loss": 0.0, "z_variance": 1.0}
    found |= {"sigma_fitted": sigma, "latent_gap": density.latent_gap(model, dataset)}
    return found | {k: last[k] for k in ("loss", "z_variance")}


def run(name: str, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root)
    method = f"{name}_e{options.epochs}_s{options.sigma:g}"
    method += "" if options.lr == ABPConfig.lr else f"_lr{options.lr:g}"
    method += f"_wd{options.weight_decay:g}" if options.weight_decay else ""
    target = options.results_dir / "arms" / record.filename(raw.name, method, seed)
    if target.exists():
        return f"{target.name}: there already"
    dataset, watch = raw.scaled(), record.Stopwatch()
    given = {
        k: getattr(options, k)
        for k in ("epochs", "hidden", "sigma", "step_size", "lr", "weight_decay", "precision")
    }
    model = arm(name, ABPConfig(**given), seed=seed, device=options.device).fit(dataset, progress=False)
    seconds = watch.seconds()
    metrics = measure(model, dataset, options.samples, seed) | {"training_seconds": seconds}
    written = watch.record(
        "arms",
        raw,
        method,
        seed=seed,
        parameters=asdict(model.config) | {"arm": name, "samples": options.samples},
        metrics=metrics,
        selection="none",
        device=model.device,
        command=command(name, seed, given | {"samples": options.samples}, options.dataset),
    ).write(options.results_dir)
    return f"{written.name}: T1 {metrics['T1']:.1f}, H {metrics['H']:.1f}, {watch.seconds():.0f} s"


def command(name: str, seed: int, given: dict[str, object], dataset: str) -> str:
    """What to type for this record alone."""
    settings = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in given.items())
    return f"python results/arms.py {dataset} --arms {name} --seeds {seed} {settings}"


def main() -> None:
    options = parse()
    jobs = [(name, seed) for seed in options.seeds for name in options.arms]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
