"""How fast ABP is: ``python benchmarks/abp_speed.py`` (or ``make bench``).

Times one visit of a batch (ten Langevin steps and a learning step) by the released program's order of work,
by a plain loop and by the library, in turns in one run, and writes medians, ratios and their spread as
records. With them: the floor that arithmetic and memory traffic set on this machine, peak memory, how the
library's time grows with batch, width and number of stacked seeds, and the time to a target T1 on hangul's
validation.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clocks import in_turns, milliseconds, peak_mb, process_peak_mb, quartiles
from clocks import write as write_record
from loops import LOOPS, SIZES, random_data, visit

from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.device import pick_device
from zsl_lib.files import project_root
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.ensemble import _Stack
from zsl_lib.learn.learner import Training
from zsl_lib.metrics import per_class_accuracy, predict

PARTS = ("iteration", "scaling", "target")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=15, help="timed visits of each (default 15)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    parser.add_argument("--memory-of", nargs=2, metavar=("LOOP", "SIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the floor -----------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, float]:
    """Best rates seen: products in float32 and bfloat16 (GFLOP/s) and copying (GB/s, read plus written)."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.rand(2048, 2048, device=device).to(dtype)
        best = min(milliseconds(lambda a=a: a @ a) for _ in range(10))
        found[f"gflops_{dtype}".replace("torch.", "")] = 2 * 2048**3 / best / 1e6
    source = torch.rand(2**26, device=device)
    target = torch.empty_like(source)
    best = min(milliseconds(lambda: target.copy_(source)) for _ in range(10))
    return found | {"gb_per_s": 2 * 4 * 2**26 / best / 1e6}


def floor_ms(
    rates: dict[str, float], size: dict[str, int], *, low: bool, batch: int = 64
) -> dict[str, float]:
    """Least time of a visit: each product at its best rate, each array moved once.

    Inference: l = 10 steps of two products. Learning: three large products and two small ones. Adam reads
    weight, gradient and two moments and writes weight and moments: 28 bytes a weight. A copy in bfloat16
    costs 6 more.
    """
    k, h, dim = size["semantic_dim"] + 10, size["hidden"], size["feature_dim"]
    large, small, weights = 2 * batch * h * dim, 2 * batch * h * k, h * (k + dim)
    rate, bytes_moved = ("gflops_bfloat16", 34) if low else ("gflops_float32", 28)
    inference = 20 * large / rates[rate] / 1e6
    learning = (3 * large + 2 * small) / rates["gflops_float32"] / 1e6
    memory = bytes_moved * weights / rates["gb_per_s"] / 1e6
    parts = {"floor_inference": inference, "floor_learning": learning, "floor_memory": memory}
    return parts | {"floor": sum(parts.values())}


# --- what is measured ----------------------------------------------------------------------------------


def iteration(options: argparse.Namespace) -> None:
    """Released, plain and library, in turns, at two sizes."""
    rates = machine(pick_device(options.device))
    for name, size in SIZES.items():
        times = in_turns({loop: visit(loop, options.device, **size) for loop in LOOPS}, options.repeats)
        for loop, values in times.items():
            metrics = quartiles(values, "ms") | {"peak_mb": peak_memory(loop, name, options)}
            for other in ("library", "library_bf16"):
                metrics |= quartiles(values / times[other], f"times_{other}")
            if loop.startswith("library"):
                metrics |= floor_ms(rates, size, low=loop == "library_bf16") | rates
            write(options, "speed", name, loop, metrics, {**size, "batch": 64, "repeats": options.repeats})


def peak_memory(loop: str, size: str, options: argparse.Namespace) -> float:
    """Peak memory in MB of some visits: the GPU's, or that of a process of their own above one that only
    imports and makes the data."""
    if pick_device(options.device).type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work = visit(loop, options.device, **SIZES[size])
        for _ in range(3):
            work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return _process_peak(loop, size) - _process_peak("nothing", size)


@functools.cache  # "nothing" is asked for with every loop
def _process_peak(loop: str, size: str) -> float:
    return process_peak_mb(__file__, "--memory-of", loop, size)


def print_own_peak(loop: str, size: str) -> None:
    sizes = SIZES[size]
    random_data(64, sizes["semantic_dim"], sizes["feature_dim"])
    if loop != "nothing":
        work = visit(loop, "cpu", **sizes)
        for _ in range(3):
            work()
    print(peak_mb())


def scaling(options: argparse.Namespace) -> None:
    """The library's time against batch, width and number of stacked seeds."""
    base = SIZES["cub_size"]
    grids = {
        "batch": {n: {**base, "batch": n} for n in (16, 32, 64, 128, 256)},
        "hidden": {h: {**base, "hidden": h} for h in (512, 1024, 2048, 4096)},
    }
    for what, grid in grids.items():
        works = {str(n): visit("library_bf16", options.device, **size) for n, size in grid.items()}
        for n, values in in_turns(works, options.repeats).items():
            write(
                options, "speed_scaling", "cub_size", f"{what}_{n}", quartiles(values, "ms"), {what: int(n)}
            )
    for name, size in SIZES.items():
        works = {str(s): stacked_visit(s, options.device, **size) for s in (1, 2, 5, 10)}
        times = in_turns(works, options.repeats)
        for s, values in times.items():
            metrics = quartiles(values, "ms") | quartiles(values / times["1"], "times_one")
            write(options, "speed_scaling", name, f"seeds_{s}", metrics, {"seeds": int(s)})


def stacked_visit(
    seeds: int, device: str, *, semantic_dim: int, hidden: int, feature_dim: int
) -> Callable[[], Any]:
    config = ABPConfig(hidden=hidden, precision="bfloat16")
    models = [ABP(config, seed=s, device=device) for s in range(seeds)]
    data = Training(random_data(64, semantic_dim, feature_dim), models[0].device)
    for model in models:
        model._start(data)
    stack = _Stack(models)
    x, c, _ = data.batch(torch.arange(64, device=data.x.device).expand(seeds, -1))
    return lambda: stack.learn(stack.infer(stack.z, x, c, None)[0], x, c, None)


def target(options: argparse.Namespace) -> None:
    """Seconds of training until T1 on hangul's validation is 95 % of what the library has after 15 epochs."""
    tuning = load("hangul").tuning_split().scaled()
    x, y = tuning.x(tuning.test_unseen), tuning.labels[tuning.test_unseen]
    for seed in range(3):
        curves = {loop: curve(loop, seed, options.device, tuning, x, y) for loop in LOOPS}
        goal = 0.95 * curves["library"][-1][1]
        for loop, points in curves.items():
            reached = next((p for p in points if p[1] >= goal), None)
            if reached is None:
                print(f"{loop}, seed {seed}: {goal:.1f} % not reached in {len(points)} epochs")
                reached = points[-1]
            seconds, t1, epochs = reached
            metrics = {
                "training_seconds": seconds,
                "T1": t1,
                "epochs": epochs,
                "target": goal,
                "reached": float(t1 >= goal),
            }
            write(options, "speed_to_t1", "hangul", loop, metrics, {"hidden": 1024}, seed=seed)


def curve(loop: str, seed: int, device: str, tuning: Any, x: Any, y: Any) -> list[tuple[float, float, int]]:
    """Training seconds so far, T1 on validation and epoch, after each of 15 epochs."""
    model, points = LOOPS[loop](ABPConfig(hidden=1024, epochs=15), seed=seed, device=device), []

    def look(model: ABP) -> None:
        recogniser = SyntheticRecogniser(model, samples=100, seed=seed).remember(tuning)
        t1 = per_class_accuracy(y, predict(recogniser, x, tuning.semantics, tuning.unseen))
        points.append((sum(h["seconds"] for h in model.history), t1, len(points) + 1))

    model.fit(tuning, after_epoch=look, progress=False)
    return points


def write(options: argparse.Namespace, *what: Any, seed: int = 0) -> None:
    """A record of this benchmark: see :func:`clocks.write`."""
    write_record(options, *what, script="abp_speed.py", seed=seed, device=pick_device(options.device))


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        return print_own_peak(*options.memory_of)
    for part in options.parts:
        {"iteration": iteration, "scaling": scaling, "target": target}[part](options)


if __name__ == "__main__":
    main()
