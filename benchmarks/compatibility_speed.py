"""How fast the closed forms are: ``python benchmarks/compatibility_speed.py`` (or ``make bench``).

Times fit and score of ESZSL, SAE and GFZSL as the library does it, from blocks of images, and in the form
that one writes first, on all images at once, in turns in one run; with them, the peak memory of each in a
process of its own. Data are random and of the size of CUB, AWA2 and ImageNet. Of ImageNet's 1.28 million
images, some blocks are measured (``rows``): the time to sum grows with them, that to solve does not.
SYNC has no closed form.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clocks import in_turns, peak_mb, process_peak_mb, quartiles, write
from one_shot import ONE_SHOT
from threadpoolctl import threadpool_limits
from torch import Tensor

from zsl_lib.embedding import model
from zsl_lib.embedding.moments import MomentModel, blocks, collect
from zsl_lib.files import project_root

FORMS = ("blocks", "one_shot")
BLOCK = 4096


@dataclass(frozen=True)
class Size:
    """Training images, those of them that are measured, and how many images are scored for the candidates."""

    images: int
    rows: int
    feature_dim: int
    semantic_dim: int
    seen: int
    candidates: int
    tested: int = 256


SIZES = {
    "cub_size": Size(7_057, 7_057, 2048, 312, 150, 200),
    "awa2_size": Size(23_527, 23_527, 2048, 85, 40, 50),
    "imagenet_size": Size(1_281_167, 4 * BLOCK, 2048, 500, 1000, 1000),
}


@dataclass(frozen=True)
class Problem:
    """Random data of a size. Of a part of the images, one block is made and given again and again, as a file
    would give one block after the other: what is read takes no more memory."""

    size: Size
    x: Tensor
    y: Tensor
    s: Tensor

    @classmethod
    def of(cls, size: Size) -> Problem:
        g = torch.Generator().manual_seed(0)
        held = size.rows if size.rows == size.images else BLOCK
        x = torch.rand(held, size.feature_dim, generator=g)
        s = torch.randn(max(size.seen, size.candidates), size.semantic_dim, generator=g)
        return cls(size, x, torch.arange(held) % size.seen, torch.nn.functional.normalize(s, dim=1))

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.size.rows // len(self.x)):
            yield from blocks(self.x, self.y, BLOCK)

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        if self.size.rows == len(self.x):
            return self.x.numpy(), self.y.numpy()
        x, y = zip(*self.parts(), strict=True)
        return torch.cat(x).numpy(), torch.cat(y).numpy()

    def test(self) -> tuple[Tensor, Tensor]:
        return self.x[: self.size.tested], self.s[: self.size.candidates]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds at each size (default 3)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the libraries' choice)")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    parser.add_argument("--memory-of", nargs=3, metavar=("METHOD", "FORM", "SIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def fit(method: str, form: str, problem: Problem) -> Callable[[], Any]:
    """Learn from all that is measured; returns what scores the test images, without arguments."""
    seen, (x, c) = problem.s[: problem.size.seen], problem.test()
    if form == "one_shot":
        scores = ONE_SHOT[method](*problem.whole(), seen.numpy())
        return lambda: scores(x.numpy(), c.numpy())
    recogniser = _library(method).fit_blocks(problem.parts(), seen)
    return lambda: recogniser.scores(x, c)


def _library(method: str) -> MomentModel:
    recogniser = model(method)()
    assert isinstance(recogniser, MomentModel)
    return recogniser


def measure(options: argparse.Namespace, name: str) -> None:
    """Every method in both forms at a size."""
    problem = Problem.of(SIZES[name])
    # ImageNet's size takes as long as the others together: one round of it
    rounds = options.repeats if problem.size.rows == problem.size.images else 1
    for method in ONE_SHOT:
        scorers: dict[str, Callable[[], Any]] = {}

        def learn(form: str, method: str = method, into: dict[str, Any] = scorers) -> None:
            into[form] = fit(method, form, problem)

        fits = in_turns({form: functools.partial(learn, form) for form in FORMS}, rounds, warm=0)
        scoring = in_turns(scorers, rounds, warm=1)
        summing = in_turns({"blocks": functools.partial(_sum, method, problem)}, rounds, warm=0)
        for form in FORMS:
            metrics = quartiles(fits[form], "fit_ms") | quartiles(scoring[form], "score_ms")
            metrics |= quartiles(fits[form] / fits["blocks"], "fit_times_blocks")
            metrics |= quartiles(scoring[form] / scoring["blocks"], "score_times_blocks")
            if form == "blocks":
                metrics |= quartiles(summing[form], "sum_ms")
            metrics["peak_mb"] = peak_memory(method, form, name)
            parameters = asdict(problem.size) | {"block": BLOCK, "repeats": rounds}
            write(
                options,
                "speed_compatibility",
                name,
                f"{method}_{form}",
                metrics,
                parameters,
                script="compatibility_speed.py",
            )


def _sum(method: str, problem: Problem) -> None:
    collect(problem.parts(), problem.size.seen, gram=_library(method).GRAM)


def peak_memory(method: str, form: str, size: str) -> float:
    """Peak memory in MB of fit and score, above a process that only imports and makes the data."""
    return _process_peak(method, form, size) - _process_peak("nothing", FORMS[0], size)


@functools.cache  # "nothing" is asked for with every method
def _process_peak(method: str, form: str, size: str) -> float:
    threads = str(torch.get_num_threads())
    return process_peak_mb(__file__, "--threads", threads, "--memory-of", method, form, size)


def print_own_peak(method: str, form: str, size: str) -> None:
    problem = Problem.of(SIZES[size])
    if method != "nothing":
        fit(method, form, problem)()
    print(peak_mb())


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
        threadpool_limits(options.threads)
    if options.memory_of:
        return print_own_peak(*options.memory_of)
    for name in options.sizes:
        measure(options, name)


if __name__ == "__main__":
    main()
