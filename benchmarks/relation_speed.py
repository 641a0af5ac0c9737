"""What the split of the relation network's first layer saves: ``python benchmarks/relation_speed.py``.

Times the scores of a batch of images for all classes, with and without the gradient of everything in them,
by the split of the library and from the concatenations of all pairs, in turns in one run; with them, the
peak memory of each in a process of its own. Embeddings are random and of the size of paper 2 (512 wide, 400
hidden units), classes as many as are seen in hangul, CUB and ImageNet.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from clocks import in_turns, peak_mb, process_peak_mb, quartiles, write
from torch import Tensor

from zsl_lib.files import project_root
from zsl_lib.models.backbone import SmallResNet
from zsl_lib.models.relation import RelationNetwork


@dataclass(frozen=True)
class Size:
    """Images of a batch, classes, width of an embedding, hidden units of the relation MLP."""

    images: int
    classes: int
    embedding: int = 512
    hidden: int = 400


SIZES = {
    "hangul_size": Size(64, 95),
    "cub_size": Size(64, 150),
    "imagenet_size": Size(64, 1000),
}


def split(net: RelationNetwork, f: Tensor, g: Tensor) -> Tensor:
    return net.relation(f, g)


def concatenations(net: RelationNetwork, f: Tensor, g: Tensor) -> Tensor:
    """Eq. 1 as it is printed, for all pairs at once."""
    pairs = torch.cat(torch.broadcast_tensors(f[:, None], g), dim=2)
    return net.last(net.first(pairs).relu_()).squeeze(2)


FORMS = {"split": split, "concatenations": concatenations}


class Problem:
    """A relation network and random embeddings of a size."""

    def __init__(self, size: Size) -> None:
        rng = torch.Generator().manual_seed(0)
        k = {"embedding": size.embedding, "hidden": size.hidden, "generator": rng}
        self.net = RelationNetwork(SmallResNet(1, (1, 1, 1, 1)), 1, **k)
        self.f = torch.rand(size.images, size.embedding, generator=rng).requires_grad_()
        self.g = torch.rand(size.classes, size.embedding, generator=rng).requires_grad_()

    def scores(self, form: str) -> Tensor:
        with torch.no_grad():
            return FORMS[form](self.net, self.f, self.g)

    def step(self, form: str) -> tuple[Tensor, ...]:
        """Gradients of the cross-entropy of class 0, in both embeddings and all weights."""
        weights = [*self.net.first.parameters(), *self.net.last.parameters()]
        scores = FORMS[form](self.net, self.f, self.g)
        target = torch.zeros(len(scores), dtype=torch.int64)
        return torch.autograd.grad(
            torch.nn.functional.cross_entropy(scores, target), [self.f, self.g, *weights]
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds at each size (default 9)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    parser.add_argument("--memory-of", nargs=2, metavar=("FORM", "SIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, name: str) -> None:
    """Both forms at a size."""
    problem = Problem(SIZES[name])
    times = {
        what: in_turns({form: functools.partial(work, form) for form in FORMS}, options.repeats, warm=1)
        for what, work in (("score", problem.scores), ("step", problem.step))
    }
    for form in FORMS:
        metrics: dict[str, float] = {"peak_mb": peak_memory(form, name)}
        for what, of in times.items():
            metrics |= quartiles(of[form], f"{what}_ms")
            metrics |= quartiles(of[form] / of["split"], f"{what}_times_split")
        parameters = asdict(SIZES[name]) | {"repeats": options.repeats}
        write(options, "speed_relation", name, form, metrics, parameters, script="relation_speed.py")


def peak_memory(form: str, size: str) -> float:
    """Peak memory in MB of a step, above a process that only imports and makes the embeddings."""
    return _process_peak(form, size) - _process_peak("nothing", size)


@functools.cache  # "nothing" is asked for with every form
def _process_peak(form: str, size: str) -> float:
    threads = str(torch.get_num_threads())
    return process_peak_mb(__file__, "--threads", threads, "--memory-of", form, size)


def print_own_peak(form: str, size: str) -> None:
    step: Callable[[str], object] = Problem(SIZES[size]).step
    if form != "nothing":
        step(form)
    print(peak_mb())


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        return print_own_peak(*options.memory_of)
    for name in options.sizes:
        measure(options, name)


if __name__ == "__main__":
    main()
