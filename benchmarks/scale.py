"""Many classes, and features on disk: ``python benchmarks/scale.py`` (or ``make bench``).

Classes: time, peak memory and what is recognised against the number of classes, for each classifier of
``zsl_lib.scale`` and for the recogniser that holds all features. A network with random weights stands for a
trained generator. Of the softmax some steps are measured; its time to fit is that of a step, times the steps.

Examples: time and peak memory, the mapped file left out, against the number of
2,048-dimensional features in a .npy: to load them through ``zsl_lib.data.load``, for the range of
``trainval``, and to scale them into a second file. The files go into ``--scratch`` and are removed; a million
examples take 8 GB, and 8 GB more while they are scaled.

Each measurement is made in a process of its own. Memory is that in /proc, so this needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clocks import milliseconds, write
from loops import random_data
from threadpoolctl import threadpool_limits
from torch import Tensor

from zsl_lib.classify import SyntheticRecogniser, knn
from zsl_lib.data import ZSLDataset, load
from zsl_lib.device import pick_device
from zsl_lib.files import project_root, write_npy
from zsl_lib.models.generator import Generator
from zsl_lib.scale import (
    ApproximateNeighbours,
    NearestNeighbours,
    Prototypes,
    Stream,
    StreamedRecogniser,
    StreamedSoftmax,
)

CLASSES = (1000, 5000, 21_000)
HELD = 5000  # classes up to which all features are held too
SIZE = {"semantic_dim": 500, "latent_dim": 10, "feature_dim": 2048, "hidden": 1024}
SETTING = {"samples": 10, "k": 10, "queries": 500, "block": 2048}
SPREAD, NOISE = 0.4, 2.0  # of the latents, and of queries around a sample in its standard deviations
KIN, OWN = 20, 1.0  # classes that are akin, as species of a family, and how far each is from the others
STEPS = 4  # of the softmax
PROBES = (4, 16, 64)

EXAMPLES = (62_500, 250_000, 1_000_000)
PASSES = ("load", "range", "scale")
BLOCK = 4096  # examples that are generated at a time
FREED = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**20))  # bytes, of glibc
KINDS = 1000  # classes of the examples


# --- memory --------------------------------------------------------------------------------------------


def kept_mb(key: str) -> float:
    """A number of this process that the kernel keeps, such as VmHWM, the most memory it has held."""
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) / 2**10


def forget_peak() -> None:
    """VmHWM begins anew."""
    Path("/proc/self/clear_refs").write_text("5")


# --- classes -------------------------------------------------------------------------------------------


class World:
    """A generator with random weights. Latents are shrunk to SPREAD, or they would hide the classes."""

    def __init__(self) -> None:
        self.device = pick_device()
        self.net = Generator(**SIZE, generator=torch.Generator().manual_seed(0)).to(self.device)

    def fit(self, dataset: ZSLDataset) -> World:
        return self

    @torch.no_grad()
    def sample(self, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        z = SPREAD * torch.randn(len(semantics) * n, SIZE["latent_dim"], generator=generator)
        c = semantics.repeat_interleave(n, dim=0)
        return self.net(c.to(self.device), z.to(self.device)).cpu().unflatten(0, (len(semantics), n))


class Problem:
    """Descriptions of so many classes, and queries of some of them: samples with noise."""

    def __init__(self, classes: int) -> None:
        rng = torch.Generator().manual_seed(1)
        self.world, width = World(), SIZE["semantic_dim"]
        family = torch.randn(-(-classes // KIN), width, generator=rng).repeat_interleave(KIN, dim=0)
        own = torch.randn(classes, width, generator=rng)
        self.semantics = torch.nn.functional.normalize(family[:classes] + OWN * own)
        self.labels = torch.randint(classes, (SETTING["queries"],), generator=rng)
        x = self.world.sample(self.semantics[self.labels], 1, rng).flatten(0, 1)
        self.x = x + NOISE * x.std() * torch.randn(x.shape, generator=rng)
        self.data = random_data(2, width, SIZE["feature_dim"])

    def stream(self) -> Stream:
        options = {"samples": SETTING["samples"], "block": SETTING["block"]}
        return StreamedRecogniser(self.world, **options).remember(self.data).stream(self.semantics)

    def held(self) -> SyntheticRecogniser:
        k = knn(SETTING["k"])
        return SyntheticRecogniser(self.world, samples=SETTING["samples"], zsl=k).remember(self.data)

    def t1(self, named: Tensor) -> float:
        """Share of the queries whose class is named, in per cent."""
        return 100 * float((named.flatten() == self.labels).float().mean())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what the work gives."""
    found: list[Any] = []
    ms = milliseconds(lambda: found.append(work()))
    return ms, found[0]


def measure_held(problem: Problem, _: Path) -> dict[str, float]:
    recogniser = problem.held()
    ask_ms, scores = timed(lambda: recogniser.scores(problem.x, problem.semantics))
    return {"ask_ms": ask_ms, "T1": problem.t1(scores.argmax(1))}


class Noted:
    """Notes the neighbours' rows when it is asked for classes, so that they can be compared."""

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near, self.rows = super().neighbours(x)
        return near, self.rows


class Exact(Noted, NearestNeighbours): ...


class Approximate(Noted, ApproximateNeighbours): ...


def measure_exact(problem: Problem, neighbours: Path) -> dict[str, float]:
    fitted = Exact(SETTING["k"]).fit(problem.stream())
    ask_ms, (_, named) = timed(lambda: fitted.top(problem.x))
    torch.save(fitted.rows, neighbours)
    return {"ask_ms": ask_ms, "T1": problem.t1(named)}


def measure_prototypes(problem: Problem, _: Path) -> dict[str, float]:
    fit_ms, fitted = timed(lambda: Prototypes().fit(problem.stream()))
    ask_ms, (_, named) = timed(lambda: fitted.top(problem.x))
    return {"fit_ms": fit_ms, "ask_ms": ask_ms, "T1": problem.t1(named)}


def measure_softmax(problem: Problem, _: Path) -> dict[str, float]:
    stream = problem.stream()
    StreamedSoftmax().fit(stream, steps=1)  # torch warms up
    start_ms, _ = timed(lambda: StreamedSoftmax().fit(stream, steps=1) is None)
    some_ms, fitted = timed(lambda: StreamedSoftmax().fit(stream, steps=1 + STEPS))
    ask_ms, _ = timed(lambda: fitted.top(problem.x))
    step_ms = (some_ms - start_ms) / STEPS
    return {"fit_ms": step_ms * fitted.steps(stream), "step_ms": step_ms, "ask_ms": ask_ms}


def measure_faiss(problem: Problem, neighbours: Path) -> dict[str, float]:
    index = Approximate(SETTING["k"])
    fit_ms, _ = timed(lambda: index.fit(problem.stream()))
    exact, found = torch.load(neighbours, weights_only=True), {"fit_ms": fit_ms}
    for index.probes in PROBES:
        found[f"ask_ms_{index.probes}"], (_, named) = timed(lambda: index.top(problem.x))
        same = (index.rows[:, :, None] == exact[:, None, :]).any(2).float().mean()
        found |= {f"recall_{index.probes}": 100 * float(same), f"T1_{index.probes}": problem.t1(named)}
    return found


METHODS: dict[str, Callable[[Problem, Path], dict[str, float]]] = {
    "exact": measure_exact,
    "faiss": measure_faiss,  # after the exact neighbours
    "prototypes": measure_prototypes,
    "softmax": measure_softmax,
    "held": measure_held,
}


def measure_classes(method: str, classes: int, scratch: Path) -> dict[str, float]:
    """Times, and the peak memory above what the problem takes; GPU memory where there is a GPU."""
    problem, work, neighbours = Problem(classes), METHODS[method], scratch / f"neighbours-{classes}.pt"
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return work(problem, neighbours) | {"peak_mb": (torch.cuda.max_memory_allocated() - before) / 2**20}
    before_mb = kept_mb("VmRSS")
    forget_peak()
    found = work(problem, neighbours)
    return found | {"peak_mb": kept_mb("VmHWM") - before_mb}


# --- examples on disk ----------------------------------------------------------------------------------


def make_examples(folder: Path, n: int) -> None:
    """Uniform features of N examples, with labels in turn; a fifth of the classes is unseen."""
    rng = torch.Generator().manual_seed(0)
    width = SIZE["feature_dim"]
    parts = (torch.rand(min(BLOCK, n - i), width, generator=rng) for i in range(0, n, BLOCK))
    folder.mkdir(parents=True)
    write_npy(folder / "features.npy", (n, width), parts)
    labels = np.arange(n) % KINDS
    seen, last = labels < KINDS * 4 // 5, np.arange(n) >= n * 4 // 5
    arrays = {
        "labels": labels,
        "att": np.eye(KINDS, dtype=np.float32),
        "trainval": np.flatnonzero(seen & ~last),
        "test_seen": np.flatnonzero(seen & last),
        "test_unseen": np.flatnonzero(~seen),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    index = "".join(f'{key} = "{key}.npy"\n' for key in ("trainval", "test_seen", "test_unseen"))
    tables = f'[features]\nx = "features.npy"\n[semantics]\natt = "att.npy"\n[index]\n{index}'
    (folder / "dataset.toml").write_text(f'labels = "labels.npy"\n{tables}')


def measure_examples(folder: Path) -> dict[str, float]:
    """Time of each step, and the peak until its end of all memory but the mapped files, above what there was.

    Pages of a mapped file count as the process's memory while nobody else needs them, so what counts here is
    the address space, VmPeak, less the files.
    """
    before, files, data, found = kept_mb("VmSize"), ["features.npy"], [], {}
    works: dict[str, Callable[[], Any]] = {
        "load": lambda: data.append(load(folder.name, folder.parent)),
        "range": lambda: data[0].observed_range(),
        "scale": lambda: data.append(data[0].scaled(folder / "scaled.npy")),
    }
    for name, work in works.items():
        found[f"{name}_ms"] = milliseconds(work)
        files += ["scaled.npy"] if name == "scale" else []
        mapped = sum((folder / file).stat().st_size for file in files) / 2**20
        found[f"{name}_mb"] = kept_mb("VmPeak") - before - mapped
    return found


# --- the command ---------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=["classes", "examples"], default=["classes", "examples"]
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--examples", nargs="+", type=int, default=EXAMPLES)
    parser.add_argument("--repeats", type=int, default=1, help="processes a measurement (default 1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()), help="a folder for files"
    )
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "N"), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_process(what: str, n: int, scratch: Path) -> dict[str, float]:
    """What ``--measure`` prints in a process of its own.

    Large blocks that are freed go back to the system at once, so that a peak is what is needed.
    """
    words = ["--measure", what, str(n), "--scratch", str(scratch), "--threads", str(torch.get_num_threads())]
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | FREED)
    return json.loads(done.stdout)


def measure(what: str, n: int, scratch: Path) -> dict[str, float]:
    return measure_examples(scratch) if what == "examples" else measure_classes(what, n, scratch)


def repeated(options: argparse.Namespace, what: str, n: int, scratch: Path) -> dict[str, float]:
    """Medians over processes."""
    runs = [in_process(what, n, scratch) for _ in range(options.repeats)]
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]}


def run_classes(options: argparse.Namespace, classes: int, scratch: Path) -> None:
    world = {"spread": SPREAD, "noise": NOISE, "kin": KIN, "own": OWN}
    setting = SIZE | SETTING | world | {"classes": classes}
    for method in options.methods:
        if method != "held" or classes <= HELD:
            found = repeated(options, method, classes, scratch)
            own = setting | ({"steps": STEPS} if method == "softmax" else {})
            record(options, f"classes_{classes}", method, found, own, pick_device())


def run_examples(options: argparse.Namespace, n: int, scratch: Path) -> None:
    need, free = 2.1 * n * SIZE["feature_dim"] * 4, shutil.disk_usage(scratch).free
    if free < need:
        raise SystemExit(
            f"{scratch}: found {free / 1e9:.0f} GB free, expected {need / 1e9:.0f} for {n:,} examples"
        )
    folder = scratch / f"examples-{n}"
    make_examples(folder, n)
    found = repeated(options, "examples", n, folder)
    shutil.rmtree(folder)
    setting = {"examples": n, "feature_dim": SIZE["feature_dim"]}
    for name in PASSES:
        metrics = {"ms": found[f"{name}_ms"], "peak_mb": found[f"{name}_mb"]}
        record(options, f"examples_{n}", name, metrics, setting, torch.device("cpu"))


def record(
    options: argparse.Namespace,
    dataset: str,
    method: str,
    metrics: dict[str, float],
    setting: dict[str, Any],
    device: torch.device,
) -> None:
    setting = setting | {"repeats": options.repeats}
    write(options, "speed_scale", dataset, method, metrics, setting, script="scale.py", device=device)


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
        threadpool_limits(options.threads)
    if options.measure:
        what, n = options.measure
        print(json.dumps(measure(what, int(n), options.scratch)))
        return
    with tempfile.TemporaryDirectory(prefix="zsl-scale-", dir=options.scratch) as scratch:
        for classes in options.classes if "classes" in options.parts else ():
            run_classes(options, classes, Path(scratch))
        for n in options.examples if "examples" in options.parts else ():
            run_examples(options, n, Path(scratch))


if __name__ == "__main__":
    main()
