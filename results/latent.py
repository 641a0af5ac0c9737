"""What c and z explain: ``python results/latent.py hangul``.

Trains ABP on features at two noise levels and, for *hangul*, on the pixels of its images, and writes one
record a model and seed to ``results/latent``: shares of variance, probes of the latents, transfer of a
typeface to unseen letters, precision and recall of synthetic examples. A record that is there is not made
again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch
from common import run_all

from zsl_lib import density, latent, record
from zsl_lib.data import ZSLDataset, load
from zsl_lib.files import project_root
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.models.decoder import LetterGenerator

FEATURES = {"hidden": 512, "epochs": 10}
MODELS = {
    "features_s0.3": ABPConfig(sigma=0.3, step_size=0.3, **FEATURES),
    "features_s0.1": ABPConfig(sigma=0.1, step_size=0.1, **FEATURES),
    "pixels_s0.3": ABPConfig(20, 512, 0.3, langevin_steps=4, step_size=0.1, lr=2e-3, epochs=8),
}
READ = ("font", "rotation", "shear", "shift_x", "shift_y", "scale")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--root", help="folder of the benchmarks; the environment's ZSL_DATA_DIR by default")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--letters", type=int, default=20, help="examples from which a typeface is inferred")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return parser.parse_args()


def read(name: str, model: str, root: str | None) -> ZSLDataset:
    """Scaled features, or pixels in [0, 1] in their place."""
    if not model.startswith("pixels"):
        return load(name, root).scaled()
    dataset = load(name, root, images=True)
    return replace(dataset, features=dataset.images[:].flatten(1).float() / 255, images=None)


def network(k: int, d: int, pixels: int, rng: torch.Generator) -> LetterGenerator:
    return LetterGenerator(k, d, pixels, generator=rng)


def variance(model: ABP, dataset: ZSLDataset, seed: int) -> dict[str, float]:
    """The model's shares (%) of its variance, and the data's, over the seen classes."""
    rng = torch.Generator().manual_seed(seed)
    made = latent.model_shares(model, dataset.semantics[dataset.seen], 200, rng)
    real = latent.data_shares(dataset, dataset.trainval)
    out = {"c": made.between, "z": made.within, "noise": made.noise, "total": made.total}
    out |= {"real_c": real.between, "real_within": real.within}
    return {f"var_{k}": v for k, v in out.items()}


def quality(model: ABP, dataset: ZSLDataset, seed: int) -> dict[str, float]:
    """Precision and recall on unseen classes: as many synthetic examples of each class as real ones."""
    rng, index = torch.Generator().manual_seed(seed), dataset.test_unseen
    labels = dataset.labels[index]
    most = int(labels.bincount().max())
    made = model.sample(dataset.semantics[dataset.unseen], most, rng)
    same = torch.cat([made[i, : int((labels == c).sum())] for i, c in enumerate(dataset.unseen)])
    precision, recall = latent.precision_recall(dataset.x(index), same)
    return {"precision": precision, "recall": recall}


def measure(model: ABP, dataset: ZSLDataset, letters: int, seed: int) -> dict[str, float]:
    out = variance(model, dataset, seed) | quality(model, dataset, seed)
    out |= {
        f"spread_{k}": density.spread(model, dataset, i)
        for k, i in {"seen": dataset.test_seen, "unseen": dataset.test_unseen}.items()
    }
    if "font" not in dataset.instances:
        return out
    rows, z = dataset.trainval.numpy(), model.z.cpu()
    for key in READ:
        found = latent.probe(z, dataset.instances[key][rows], dataset.labels[dataset.trainval], seed=seed)
        out |= {f"probe_{key}": found.score, f"probe_{key}_control": found.control}
    fonts = dataset.instances["font"]
    styles = latent.style_latents(model, dataset, fonts, letters=letters, seed=seed)
    moved = latent.transfer(model, dataset, fonts, styles, seed=seed)
    return out | {f"transfer_{k}": float(v.mean()) for k, v in moved._asdict().items()}


def run(name: str, seed: int, options: argparse.Namespace) -> str:
    raw, config = load(options.dataset, options.root), MODELS[name]
    target = options.results_dir / "latent" / record.filename(raw.name, name, seed)
    if target.exists():
        return f"{target.name}: there already"
    dataset, watch = read(options.dataset, name, options.root), record.Stopwatch()
    made = network if name.startswith("pixels") else None
    model = ABP(config, seed=seed, device=options.device, network=made).fit(dataset, progress=False)
    seconds = watch.seconds()
    written = watch.record(
        "latent",
        raw,
        name,
        seed=seed,
        parameters=asdict(config) | {"letters": options.letters},
        metrics=measure(model, dataset, options.letters, seed) | {"training_seconds": seconds},
        selection="none",
        device=model.device,
        command=f"python results/latent.py {options.dataset} --models {name} --seeds {seed} "
        f"--letters {options.letters}",
    ).write(options.results_dir)
    return f"{written.name}: {watch.seconds():.0f} s"


def main() -> None:
    options = parse()
    models = [m for m in options.models if options.dataset == "hangul" or not m.startswith("pixels")]
    jobs = [(name, seed) for seed in options.seeds for name in models]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
