"""Count the test images inside the published tuning splits: ``python results/split_leak.py FOLDER …``.

Each FOLDER holds a ``*_splits.mat`` of the xlsa17 benchmark (no features needed) and is named after its
data set. Writes ``results/split_leak/<data set>-<semantics>_published-0.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scipy.io

from zsl_lib import record
from zsl_lib.data import xlsa17
from zsl_lib.files import project_root


def overlap(split: Path) -> dict[str, float] | None:
    """Sizes in images of train ∪ val, test_seen and their intersection, and the share of test_seen in %."""
    sets = scipy.io.loadmat(split)
    if "train_loc" not in sets or "val_loc" not in sets:
        return None
    tuning = {*sets["train_loc"].flat, *sets["val_loc"].flat}
    test = {*sets["test_seen_loc"].flat}
    leaked = len(tuning & test)
    sizes = {"tuning": len(tuning), "test_seen": len(test), "leaked": leaked}
    return sizes | {"share": 100 * leaked / len(test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--results-dir", default=project_root() / "results", type=Path)
    options = parser.parse_args()
    for split in sorted(s for folder in options.folders for s in folder.glob("*_splits.mat")):
        watch, metrics = record.Stopwatch(), overlap(split)
        if metrics is None:
            print(f"{split.parent.name}/{split.name}: publishes no train_loc and val_loc")
            continue
        name, semantics = split.parent.name, split.name.removesuffix("_splits.mat")
        path = watch.record(
            "split_leak",
            name,
            f"{semantics}_published",
            seed=0,
            parameters={"split": split.name},
            metrics=metrics,
            selection="none",
            digests={"split": xlsa17.sha256(split)},
            command=f"python results/split_leak.py data/{name}",
        ).write(options.results_dir)
        print(f"{name}/{split.name}: {metrics['leaked']:.0f} test images in the tuning split -> {path.name}")


if __name__ == "__main__":
    main()
