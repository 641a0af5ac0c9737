"""Learning from incomplete features: ``python results/incomplete.py hangul --kind random --ratios 0.5 0.9``.

Hides features of the training examples (of all examples with ``--everywhere``) and learns from the rest: with
the mask (*masked*), or from features filled in by one of :mod:`zsl_lib.impute`. Same data, network, order and
number of examples for all; nothing is tuned. Writes one record a method, kind, ratio and seed to
``results/incomplete``. A record that is there is not made again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import run_all
from torch import Tensor

from zsl_lib import impute, record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import ZSLDataset, load, masks
from zsl_lib.files import project_root
from zsl_lib.learn import ABP, CVAE, ABPConfig
from zsl_lib.learn.gan import gan_config
from zsl_lib.learn.learner import FeatureLearner
from zsl_lib.learn.masked import MaskedGAN
from zsl_lib.learn.methods import learner
from zsl_lib.metrics import per_class_accuracy, predict

METHODS = [f"abp_{how}" for how in ("masked", *impute.METHODS)]
METHODS += [f"{kind}_{how}" for kind in ("vae", "gan") for how in ("masked", "zero", "class_mean")]
GAN = {"lr": 3e-4}
"""FGZSL's published rate is 1e-4; with that, so few epochs are too few."""
MASK_SEED = 1000
Job = tuple[str, float, int]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--root", help="folder of the benchmarks; the environment's ZSL_DATA_DIR by default")
    parser.add_argument("--kind", choices=list(masks.KINDS), default="random")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--everywhere", action="store_true", help="hide features of test examples too")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--sigma", type=float, default=ABPConfig.sigma)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    parser.add_argument("--precision", default="bfloat16", help="of ABP's inference: float32 or bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return parser.parse_args()


def incomplete(raw: ZSLDataset, ratio: float, seed: int, options: argparse.Namespace) -> ZSLDataset:
    """The data with features hidden: for all methods the same at the same seed.

    The mask has a seed of its own, since the learner's weights start from the same numbers otherwise.
    """
    assert raw.features is not None
    rows = torch.arange(len(raw)) if options.everywhere else raw.trainval
    rng = torch.Generator().manual_seed(MASK_SEED + seed)
    return masks.hide(raw, masks.draw(options.kind, raw.features[rows], ratio, rng), rows)


def make(name: str, seed: int, options: argparse.Namespace) -> FeatureLearner:
    given = {"hidden": options.hidden, "epochs": options.epochs}
    if name == "gan":
        config = gan_config("fgzsl", **given, **GAN, critic_hidden=options.hidden)
        return MaskedGAN(config, seed=seed, device=options.device)
    given |= {"encoder_hidden": options.hidden, "sigma": options.sigma, "precision": options.precision}
    return learner({"abp": "abp", "vae": "cvae"}[name], given, seed=seed, device=options.device)


@torch.no_grad()
def completed(model: FeatureLearner, dataset: ZSLDataset) -> Tensor | None:
    """The training features as the model, or what filled them in, has them, ``[n, D]``; None: it has none."""
    index = dataset.trainval
    x, c = dataset.x(index), dataset.semantics[dataset.labels[index]].to(model.device)
    if dataset.mask is None:
        return x
    if isinstance(model, ABP):
        return impute.expected(model, dataset)
    if isinstance(model, CVAE):
        latent, _ = model.encode(x.to(model.device), c, dataset.mask[index].to(model.device))
        return model.net(c, latent).cpu()
    return None


def recognition(model: FeatureLearner, dataset: ZSLDataset, samples: int, seed: int) -> float:
    """T1 by 20-NN on synthetic features of the unseen classes."""
    recogniser = SyntheticRecogniser(model, samples=samples, seed=seed).remember(dataset)
    x, y = dataset.x(dataset.test_unseen), dataset.labels[dataset.test_unseen]
    return per_class_accuracy(y, predict(recogniser, x, dataset.semantics, dataset.unseen))


def run(name: str, ratio: float, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root)
    kind = "complete" if ratio == 0 else options.kind + ("_everywhere" if options.everywhere else "")
    method = f"{name.split('_')[0]}_complete" if ratio == 0 else f"{name}_{kind}_{ratio:g}"
    target = options.results_dir / "incomplete" / record.filename(raw.name, method, seed)
    if target.exists():
        return f"{target.name}: there already"
    watch, hidden = record.Stopwatch(), incomplete(raw, ratio, seed, options)
    kind_of_model, how = name.split("_", 1)
    masked = hidden.scaled()
    dataset = masked if how == "masked" else impute.fill(masked, how)
    imputing = watch.seconds()
    model = make(kind_of_model, seed, options).fit(dataset, progress=False)
    training = watch.seconds() - imputing
    metrics = {"T1": recognition(model, dataset, options.samples, seed)}
    metrics |= errors(raw, hidden, completed(model, dataset)) if ratio else {"missing": 0.0}
    metrics |= {"imputing_seconds": imputing, "training_seconds": training}
    given = {k: getattr(options, k) for k in ("epochs", "hidden", "sigma", "samples", "precision")}
    what = {"method": name, "kind": kind, "ratio": ratio, "samples": options.samples}
    written = watch.record(
        "incomplete",
        raw,
        method,
        seed=seed,
        parameters=asdict(model.config) | what,
        metrics=metrics,
        selection="none",
        device=model.device,
        command=command((name, ratio, seed), given, options),
    ).write(options.results_dir)
    return f"{written.name}: T1 {metrics['T1']:.1f}, {watch.seconds():.0f} s"


def errors(raw: ZSLDataset, hidden: ZSLDataset, found: Tensor | None) -> dict[str, float]:
    """The share that is missing, and the root mean square error of what stands in its place."""
    assert raw.features is not None
    assert hidden.mask is not None
    away = ~hidden.mask[hidden.trainval]
    missing = {"missing": 100 * float(away.float().mean())}
    if found is None:
        return missing
    low, span = hidden.observed_range()
    gaps = (found - ((raw.features - low) / span)[hidden.trainval])[away]
    return missing | {"rmse_hidden": float(gaps.square().mean().sqrt())}


def command(job: Job, given: dict[str, Any], options: argparse.Namespace) -> str:
    """What to type for this record alone."""
    name, ratio, seed = job
    settings = " ".join(f"--{k} {v}" for k, v in given.items()) + " --everywhere" * options.everywhere
    which = f"--kind {options.kind} --ratios {ratio:g} --methods {name} --seeds {seed}"
    return f"python results/incomplete.py {options.dataset} {which} {settings}"


def jobs(options: argparse.Namespace) -> list[Job]:
    """With nothing hidden, all ways of one learner are the same, and one of them is run."""
    found: list[Job] = []
    for seed in options.seeds:
        for ratio in options.ratios:
            once = {name.split("_")[0]: name for name in reversed(options.methods)}
            names = options.methods if ratio else list(once.values())
            found += [(name, ratio, seed) for name in names]
    return found


def main() -> None:
    options = parse()
    run_all(run, jobs(options), options)


if __name__ == "__main__":
    main()
