"""What adversarial training costs: ``python benchmarks/adversarial_speed.py`` (or ``make bench``).

Table 10 of paper 2 again: the time of each part of an iteration, and whole iterations of every scheme of
:mod:`zsl_lib.learn.adversarial`, as multiples of the clean ones right before and after, beside what counting
passes says (a forward pass 1, the gradient in activations 1, that in weights 1). Then what is bought with
it: how strong the searches are, that in bfloat16 among them, on the committed backbone and hangul's images;
and how well hangul's unseen classes are recognised under attack after training by each scheme.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from clocks import in_pairs, milliseconds, quartiles
from clocks import write as write_record
from torch import Tensor
from torch.nn import functional as F

from zsl_lib.attacks import pgd
from zsl_lib.attacks.common import per_image
from zsl_lib.data import ZSLDataset, load
from zsl_lib.device import pick_device
from zsl_lib.files import project_root
from zsl_lib.learn.adversarial import (
    AdversarialConfig,
    AdversarialLearner,
    Precision,
    adversarial_loss,
    ascend,
    replay,
)
from zsl_lib.metrics import per_class_accuracy
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

# what adversarial_loss is told, how often it goes forward and all the way back, and its steps of search
SCHEMES: dict[str, tuple[dict[str, Any], int, int]] = {
    "clean": ({"alpha": 1.0}, 1, 0),
    "plain_3": ({"scheme": "plain"}, 2, 3),
    "reuse_3": ({}, 2, 2),
    "reuse_3_bf16": ({"inner": "bfloat16"}, 2, 2),
    "attacked_only_3": ({"alpha": 0.0}, 1, 3),
    "fast": ({"scheme": "fast"}, 2, 1),
    "attacked_only_fast": ({"scheme": "fast", "alpha": 0.0}, 1, 1),
    "attacked_only_fast_bf16": ({"scheme": "fast", "alpha": 0.0, "inner": "bfloat16"}, 1, 1),
    "noise": ({"scheme": "noise"}, 2, 0),
    "free": ({"scheme": "free", "alpha": 0.0}, 1, 0),  # one replay
    "plain_9": ({"scheme": "plain", "steps": 9}, 2, 9),
    "reuse_9": ({"steps": 9}, 2, 8),
}
PASSES = {"forward": 1 / 3, "step": 2 / 3, "step_bf16": 2 / 3}
"""What the schemes are made of, in clean iterations: forward passes, and steps of a search."""

TRAINED = (
    "clean", "noise", "reuse_3", "reuse_3_bf16", "fast", "attacked_only_3", "attacked_only_fast", "free"
)  # fmt: skip
PARTS = ("time", "strength", "robustness")


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
        self.delta = torch.zeros_like(self.x)

    def loss(self, x: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x, self.semantics), self.y)

    def step(self, scheme: str) -> None:
        """One whole iteration."""
        if scheme == "free":
            value, self.delta = replay(self.loss, self.x, self.delta, model=self.net, radius=2.0)
        else:
            options = SCHEMES[scheme][0]
            value = adversarial_loss(
                self.loss, self.x, model=self.net, radius=2.0, generator=self.draws, **options
            )
        self.update(value)

    def search(self, steps: int, inner: Precision = "float32") -> Tensor:
        rho = per_image("radius", 2.0, self.x)
        options = {"steps": steps, "start": self.x, "inner": inner}
        return ascend(self.loss, self.x, model=self.net, radius=rho, **options)  # type: ignore[arg-type]

    def works(self) -> dict[str, Callable[[], Any]]:
        """What is timed in turns."""
        passes = {
            "forward": lambda: self.loss(self.x),
            "step": lambda: self.search(1),
            "step_bf16": lambda: self.search(1, "bfloat16"),
        }
        return {scheme: functools.partial(self.step, scheme) for scheme in SCHEMES} | passes

    def update(self, value: Tensor) -> None:
        self.adam.zero_grad()
        value.backward()
        self.adam.step()

    def parts(self, steps: int) -> dict[str, float]:
        """Milliseconds of Algorithm 1's parts in the paper's order, the first gradient not reused."""
        kept: dict[str, Tensor] = {}

        def keep(name: str, work: Callable[[], Tensor]) -> Callable[[], None]:
            return lambda: kept.__setitem__(name, work())

        works = {
            "forward_clean": keep("clean", lambda: self.loss(self.x)),
            "search": keep("moved", lambda: self.search(steps)),
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds at each size (default 15)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each scheme (default 3)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    return parser.parse_args()


def measure(options: argparse.Namespace, name: str) -> None:
    """Every scheme at a size, and its passes; then the parts of Algorithm 1 with 3 and with 9 steps."""
    size = SIZES[name]
    iteration, rounds = Iteration(size, options.device), options.repeats
    works = iteration.works()
    if not any(size.widths):  # ResNet-34: a round takes as long as all rounds of the small network
        rounds = min(3, rounds)
        works = {work: do for work, do in works.items() if not work.endswith("_9")}
    for work, (own, clean) in in_pairs(works["clean"], works, rounds).items():
        metrics = quartiles(own, "ms") | quartiles(own / clean, "times_clean")
        write(options, name, work, metrics | counted(work), at_size(size, rounds))
    for steps in (3, 9):
        taken = [iteration.parts(steps) for _ in range(rounds + 1)][1:]
        metrics = {}
        for part in taken[0]:
            metrics |= quartiles(torch.tensor([t[part] for t in taken]).numpy(), f"{part}_ms")
        write(options, name, f"parts_{steps}", metrics, at_size(size, rounds))


def at_size(size: Size, rounds: int) -> dict[str, Any]:
    """The parameters of a record of times."""
    return asdict(size) | {"widths": list(size.widths), "repeats": rounds}


def counted(work: str) -> dict[str, float]:
    """What a scheme is made of, and what it costs by the count, in clean iterations; of a pass its cost."""
    if work in PASSES:
        return {"count": PASSES[work]}
    _, whole, steps = SCHEMES[work]
    return {"count": whole + steps * PASSES["step"], "whole_passes": whole, "search_steps": steps}


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
        write(options, "hangul", f"strength_{radius:g}", metrics, {"images": images})


def robustness(options: argparse.Namespace, per_class: int = 20, tested: int = 400, epochs: int = 4) -> None:
    """Recognition of hangul's unseen classes, clean and attacked, after training by the schemes.

    Each has radii up to 16 and as many updates of the weights: the free scheme replays a batch four times,
    and has a quarter of the epochs. Else settings are the defaults, which were chosen on validation.
    """
    data, rng = load("hangul", images=True), torch.Generator().manual_seed(0)
    chosen = [data.trainval[data.labels[data.trainval] == c] for c in data.seen]
    few = torch.cat([index[torch.randperm(len(index), generator=rng)[:per_class]] for index in chosen])
    none = few[:0]
    data = replace(data, features=None, trainval=few, train=none, val=none)
    index = data.test_unseen[torch.randperm(len(data.test_unseen), generator=rng)[:tested]]
    for scheme in TRAINED:
        told = SCHEMES[scheme][0]
        free = told.get("scheme") == "free"
        config = AdversarialConfig(epochs=-(-epochs // 4) if free else epochs, radius=16.0, **told)
        for seed in range(options.seeds):
            model = AdversarialLearner(config, seed=seed, device=options.device)
            found = recognised(model.fit(data, progress=False), data, index)
            parameters = asdict(config) | {"per_class": per_class, "tested": tested}
            write(options, "hangul", f"trained_{scheme}", found, parameters, seed=seed)


def recognised(model: AdversarialLearner, data: ZSLDataset, index: Tensor) -> dict[str, float]:
    """T1 in per cent of the images at ``index``, clean and after 10 steps of ascent on the margin."""
    assert data.images is not None
    x = data.images[index].float().to(model.device)
    y = torch.searchsorted(data.unseen, data.labels[index])
    scores, found = model.score_function(data.semantics[data.unseen]), {}
    for radius in (0, 4, 8):
        moved = pgd(scores, x, y.to(x.device), radius=radius, steps=10, loss="margin") if radius else x
        with torch.no_grad():
            found[f"T1_{radius}"] = per_class_accuracy(y, scores(moved).argmax(1).cpu())
    return found


def write(
    options: argparse.Namespace,
    dataset: str,
    method: str,
    metrics: dict[str, float],
    parameters: dict[str, Any],
    seed: int = 0,
) -> None:
    """A record of this benchmark: see :func:`clocks.write`."""
    write_record(
        options,
        "speed_adversarial",
        dataset,
        method,
        metrics,
        parameters,
        script="adversarial_speed.py",
        seed=seed,
        device=pick_device(options.device),
        digits=3,
    )


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if "time" in options.parts:
        for name in options.sizes:
            measure(options, name)
    if "strength" in options.parts:
        strength(options)
    if "robustness" in options.parts:
        robustness(options)


if __name__ == "__main__":
    main()
