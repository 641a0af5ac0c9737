"""How hard *hangul* is, by setting: seen classes and distortion, measured on validation only.

    python -m zsl_lib.data.hangul.difficulty            # the grid of settings -> difficulty.csv
    python -m zsl_lib.data.hangul.difficulty --test     # the committed data -> difficulty_test.csv

For each setting the images are rendered, a backbone is trained on its ``train``, and three recognisers
are compared on :meth:`ZSLDataset.tuning_split`: a linear method (ESZSL), a generative one (ABP) and a
ceiling that has real images of the new classes in the training typefaces. The grid never looks at a test
image; ``--test`` was run once, after the choice.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser, knn
from zsl_lib.data.dataset import INDEX_SETS, ZSLDataset
from zsl_lib.data.hangul import load
from zsl_lib.data.hangul.files import HERE
from zsl_lib.data.hangul.render import Setting, build, read_faces
from zsl_lib.data.hangul.syllables import ATTRIBUTE_NAMES, attributes
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.learn.abp import ABP, ABPConfig
from zsl_lib.learn.backbone import train_backbone
from zsl_lib.metrics import evaluate, per_class_accuracy

GRID = tuple(
    Setting(n_train=n, strength=s) for n, s in ((55, 0.3), (55, 0.6), (55, 1.0), (45, 0.6), (70, 0.6))
)
POWERS = tuple(10.0**k for k in range(-3, 5))


def make(setting: Setting) -> ZSLDataset:
    """The data set of a setting, in memory, with a backbone of its own."""
    arrays, splits = build(setting)
    images = torch.from_numpy(arrays["images"])[:, None]
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    index = {key: torch.from_numpy(splits[key].astype(np.int64)) for key in INDEX_SETS}
    rng = torch.Generator().manual_seed(0)
    backbone = train_backbone(images[index["train"]], labels[index["train"]], generator=rng)
    names = tuple(str(s) for s in arrays["class_names"])
    return ZSLDataset(
        name="hangul",
        labels=labels,
        semantics=torch.from_numpy(attributes(names)),
        class_names=names,
        features=backbone.extract(images),
        attribute_names=ATTRIBUTE_NAMES,
        instances={"font": arrays["typefaces"][arrays["font"]]},
        digests={},
        **index,
    )


def best_eszsl(tuning: ZSLDataset) -> tuple[float, float]:
    """(gamma, lambda) with the best T1 of a tuning split."""
    grid = product(POWERS, POWERS)
    return max(grid, key=lambda gl: evaluate(ESZSL(*gl).fit(tuning), tuning).T1)


def ceiling(dataset: ZSLDataset, real: Tensor, test: Tensor) -> dict[str, float]:
    """Accuracy on ``test`` of classifiers that learn from ``real`` features of the same classes."""
    x, y = dataset.x(real).numpy(), dataset.labels[real].numpy()
    out = {}
    for name, classifier in (("knn", knn(5)), ("softmax", SoftmaxClassifier(epochs=100))):
        found = classifier.fit(x, y).predict(dataset.x(test).numpy())
        out[f"ceiling_{name}"] = per_class_accuracy(dataset.labels[test], torch.from_numpy(found))
    return out


def measure(problem: ZSLDataset, gamma: float, lam: float, epochs: int) -> dict[str, float]:
    """T1 and H of ESZSL and ABP, in per cent, on a problem or on its tuning split."""
    linear = evaluate(ESZSL(gamma, lam).fit(problem), problem)
    model = SyntheticRecogniser(ABP(ABPConfig(epochs=epochs), seed=0, device="cpu"))
    generative = evaluate(model.fit(problem, progress=False), problem)
    return {"eszsl_T1": linear.T1, "eszsl_H": linear.H, "abp_T1": generative.T1, "abp_H": generative.H}


def validate(dataset: ZSLDataset, epochs: int) -> dict[str, float]:
    """All validation numbers of one data set."""
    tuning = dataset.tuning_split().scaled()  # scaled by its own training images
    gamma, lam = best_eszsl(tuning)
    new = torch.isin(dataset.labels[dataset.trainval], tuning.unseen)
    train_fonts = {f.typeface for f in read_faces() if f.split == "train"}
    fonts = torch.from_numpy(np.isin(dataset.instances["font"][dataset.trainval.numpy()], [*train_fonts]))
    real = dataset.trainval[new & fonts]
    return {
        "chance": 100 / len(tuning.unseen),
        "gamma": gamma,
        "lambda": lam,
        **measure(tuning, gamma, lam, epochs),
        **ceiling(tuning, real, tuning.test_unseen),
    }


def write_rows(rows: Iterable[dict[str, float]], path: Path) -> None:
    """One row a setting, accuracies to 0.1 %."""
    rows = [{k: v if k in ("gamma", "lambda", "chance") else round(v, 1) for k, v in r.items()} for r in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure the grid (default) or the committed data (``--test``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--test", action="store_true", help="report the committed setting on test")
    parser.add_argument("--epochs", type=int, default=10, help="of ABP")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.test:
        data = load()
        gamma, lam = best_eszsl(data.tuning_split().scaled())
        row = {"chance": 100 / len(data.unseen), "gamma": gamma, "lambda": lam}
        row |= measure(data.scaled(), gamma, lam, args.epochs)
        write_rows([row], HERE / "difficulty_test.csv")
        print(row)
        return
    rows = []
    for setting in GRID:
        start = time.perf_counter()
        found = validate(make(setting), args.epochs)
        rows.append(
            {"n_train": setting.n_train, "n_val": setting.n_val, "strength": setting.strength} | found
        )
        write_rows(rows, HERE / "difficulty.csv")
        print(
            {k: round(v, 3) for k, v in rows[-1].items()}, f"{time.perf_counter() - start:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
