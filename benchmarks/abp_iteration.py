"""One iteration of alternating back-propagation: a plain loop beside the library's, in one run.

    python benchmarks/abp_iteration.py --repeats 5

(a) plain: the network on the concatenated [c, z], and at each Langevin step a backward pass that also
computes the gradient of the weights, which inference throws away.
(b) zsl_lib: the semantics' share of the hidden layer computed once a batch, and gradients of z alone.
Both infer and then learn, on a random batch of CUB's size, in turns; the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from zsl_lib.data import ZSLDataset
from zsl_lib.learn import ABP, ABPConfig


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed iterations of each (default 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    sizes = {"batch": 64, "semantic-dim": 312, "latent-dim": 10, "hidden": 4096, "feature-dim": 2048}
    for name, value in (sizes | {"steps": 10}).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    return parser.parse_args()


def plain_iteration(model: ABP, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
    """Eq. 6 and 8 as one writes them first."""
    k, net, adam = model.config, model.net, model._adam

    def energy(z: Tensor) -> Tensor:
        hidden = torch.nn.functional.leaky_relu(net.inner(torch.cat([c, z], 1)), 0.2)
        mean = torch.relu(net.outer(hidden))
        return (x - mean).square().sum() / (2 * k.sigma**2) + z.square().sum() / 2

    for _ in range(k.langevin_steps):
        z = z.detach().requires_grad_()
        adam.zero_grad()
        energy(z).backward()
        z = z.detach() - k.step_size**2 / 2 * z.grad + k.step_size * torch.randn_like(z)
    adam.zero_grad()
    (energy(z) / len(x)).backward()
    adam.step()
    return z


def library_iteration(model: ABP, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
    z, _ = model.infer(z, x, c)
    model.learn(z, x, c)
    return z


def milliseconds(iteration, model: ABP, x: Tensor, c: Tensor, z: Tensor) -> float:
    synchronise = torch.cuda.synchronize if x.is_cuda else lambda: None
    synchronise()
    start = time.perf_counter()
    iteration(model, x, c, z)
    synchronise()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    g, n = torch.Generator().manual_seed(0), args.batch
    labels = torch.cat([torch.zeros(n), torch.tensor([0.0, 1.0])]).long()
    data = ZSLDataset(
        name="random",
        features=torch.rand(n + 2, args.feature_dim, generator=g),
        labels=labels,
        semantics=torch.rand(2, args.semantic_dim, generator=g),
        class_names=("seen", "unseen"),
        trainval=torch.arange(n),
        test_seen=torch.tensor([n]),
        test_unseen=torch.tensor([n + 1]),
    )
    config = ABPConfig(
        latent_dim=args.latent_dim, hidden=args.hidden, langevin_steps=args.steps, batch_size=n
    )
    model = ABP(config, seed=0, device=args.device).fit(data, epochs=0, progress=False)
    x, c = data.x(data.trainval).to(model.device), data.semantics[:1].expand(n, -1).to(model.device)
    loops = {"plain": plain_iteration, "zsl_lib": library_iteration}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(args.repeats + 1):  # the first warms up
        for name, loop in loops.items():
            took = milliseconds(loop, model, x, c, model.z.clone())
            if repeat:
                times[name].append(took)
    medians = {name: statistics.median(values) for name, values in times.items()}
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    print(f"torch {torch.__version__}, {model.device.type}{threads}, batch {n}, {args.steps} Langevin steps")
    print(f"{'':10}{'ms':>9}{'range':>18}{'ratio':>8}")
    for name, values in times.items():
        spread = f"{min(values):.1f}–{max(values):.1f}"
        print(f"{name:10}{medians[name]:9.1f}{spread:>18}{medians[name] / medians['zsl_lib']:8.2f}")


if __name__ == "__main__":
    main()
