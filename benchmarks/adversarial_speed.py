"""What adversarial training costs: ``python benchmarks/adversarial_speed.py`` (or ``make bench``).

Table 10 of paper 2 again: the time of each part of an iteration, and whole iterations of every scheme of
:mod:`zsl_lib.learn.adversarial` in turns in one run, as multiples of a clean one, beside what counting passes
says (a forward pass 1, the gradient in activations 1, that in weights 1). Where the search runs in bfloat16,
a record says how strong its attack is beside that in float32, on the committed backbone and hangul's images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from clocks import in_turns, milliseconds, quartiles
from clocks import write as write_record
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.attacks.common import per_image
from zsl_lib.data import load
from zsl_lib.device import pick_device
from zsl_lib.files import project_root
from zsl_lib.learn.adversarial import adversarial_loss, ascend
from zsl_lib.models.backbone import SmallResNet, hangul_backbone, untrained_resnet34
from zsl_lib.models.relation import RelationNetwork


@dataclass(frozen=True)
class Size:
    """Images of a batch, channels and side in pixels, seen classes, attributes, widths of the backbone."""

    images: int = 64
    channels: int = 1
    side: int = 32
    classes: int = 95
    attributes: int = 68
    widths: tuple[int, int, int, int] = (16, 32, 64, 128)


SIZES = {"hangul_size": Size(), "resnet34_size": Size(8, 3, 224, 100, 312, (0, 0, 0, 0))}

# what adversarial_loss is told, and the units of its passes
SCHEMES: dict[str, tuple[dict[str, Any], int]] = {
    "clean": ({"alpha": 1.0}, 3),
    "plain_3": ({"scheme": "plain"}, 12),
    "reuse_3": ({}, 10),
    "reuse_3_bf16": ({"inner": "bfloat16"}, 10),
    "attacked_only_3": ({"alpha": 0.0}, 9),
    "fast": ({"scheme": "fast"}, 8),
    "attacked_only_fast": ({"scheme": "fast", "alpha": 0.0}, 5),
    "attacked_only_fast_bf16": ({"scheme": "fast", "alpha": 0.0, "inner": "bfloat16"}, 5),
    "noise": ({"scheme": "noise"}, 6),
    "plain_9": ({"scheme": "plain", "steps": 9}, 24),
    "reuse_9": ({"steps": 9}, 22),
}  # a replay of the free scheme is a clean iteration and a sign


class Iteration:
    """A relation network of a size, random images, and what an iteration of training does with them."""

    def __init__(self, size: Size, device: str) -> None:
        where, rng = pick_device(device), torch.Generator().manual_seed(0)
        backbone = SmallResNet(2, size.widths) if any(size.widths) else untrained_resnet34()
        self.net = RelationNetwork(backbone, size.attributes, generator=rng)
        self.net.to(where, memory_format=torch.channels_last).train()
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-6, fused=True)
        images = torch.rand(size.images, size.channels, size.side, size.side, generator=rng)
        self.x = 255 * images.to(where, memory_format=torch.channels_last)
        self.y = torch.randint(size.classes, (size.images,), generator=rng).to(where)
        self.semantics = torch.rand(size.classes, size.attributes, generator=rng).to(where)
        self.draws = torch.Generator(where).manual_seed(0)

    def loss(self, x: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x, self.semantics), self.y)

    def step(self, scheme: str) -> None:
        """One whole iteration."""
        options, _ = SCHEMES[scheme]
        value = adversarial_loss(
            self.loss, self.x, model=self.net, radius=2.0, generator=self.draws, **options
        )
        self.update(value)

    def update(self, value: Tensor) -> None:
        self.adam.zero_grad()
        value.backward()
        self.adam.step()

    def parts(self, steps: int) -> dict[str, float]:
        """Milliseconds of Algorithm 1's parts in the paper's order, the first gradient not reused."""
        kept: dict[str, Tensor] = {}

        def keep(name: str, work: Callable[[], Tensor]) -> Callable[[], None]:
            return lambda: kept.__setitem__(name, work())

        rho = per_image("radius", 2.0, self.x)
        options = {"model": self.net, "radius": rho, "start": self.x}
        works = {
            "forward_clean": keep("clean", lambda: self.loss(self.x)),
            "search": keep("moved", lambda: ascend(self.loss, self.x, steps=steps, **options)),  # type: ignore[arg-type]
            "forward_attacked": keep("attacked", lambda: self.loss(kept["moved"])),
            "zero": self.adam.zero_grad,
            "backward": lambda: ((kept["clean"] + kept["attacked"]) / 2).backward(),
            "optimiser": self.adam.step,
        }
        found = {name: milliseconds(work) for name, work in works.items()}
        found["optimiser"] += found.pop("zero")
        return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["hangul_size"])
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds at each size (default 15)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return parser.parse_args()


def measure(options: argparse.Namespace, name: str) -> None:
    """Every scheme at a size, then the parts of Algorithm 1 with 3 and with 9 steps."""
    iteration = Iteration(SIZES[name], options.device)
    works = {scheme: (lambda s=scheme: iteration.step(s)) for scheme in SCHEMES}
    times = in_turns(works, options.repeats)
    for scheme, values in times.items():
        metrics = quartiles(values, "ms") | quartiles(values / times["clean"], "times_clean")
        write(options, name, scheme, metrics | {"count": SCHEMES[scheme][1] / 3})
    for steps in (3, 9):
        rounds = [iteration.parts(steps) for _ in range(options.repeats + 2)][2:]
        metrics = {}
        for part in rounds[0]:
            metrics |= quartiles(torch.tensor([r[part] for r in rounds]).numpy(), f"{part}_ms")
        write(options, name, f"parts_{steps}", metrics)


def strength(options: argparse.Namespace, images: int = 512) -> None:
    """How far the searches raise the loss of the committed backbone on images that it was trained on."""
    data, device = load("hangul", images=True), pick_device(options.device)
    classes = data.labels[data.train].unique()
    index = data.train[torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:images]]
    assert data.images is not None
    x = data.images[index].float().to(device)
    y = torch.searchsorted(classes, data.labels[index]).to(device)
    net = hangul_backbone().to(device)

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(net(x / 255).float(), y)

    for radius in (1.0, 2.0, 4.0):
        metrics = {"radius": radius, "clean": loss(x).item()}
        for name in ("reuse_3", "reuse_3_bf16", "fast", "reuse_9"):
            told = {**SCHEMES[name][0], "alpha": 0.0, "generator": torch.Generator(device).manual_seed(0)}
            metrics[name] = adversarial_loss(loss, x, model=net, radius=radius, **told).item()
        write(options, "hangul", f"strength_{radius:g}", metrics)


def write(options: argparse.Namespace, size: str, method: str, metrics: dict[str, float]) -> None:
    """A record of this benchmark: see :func:`clocks.write`."""
    known = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(SIZES.get(size, Size())).items()}
    write_record(
        options,
        "speed_adversarial",
        size,
        method,
        metrics,
        known | {"repeats": options.repeats},
        script="adversarial_speed.py",
        device=pick_device(options.device),
        digits=3,
    )


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.sizes:
        measure(options, name)
    strength(options)


if __name__ == "__main__":
    main()
