"""What c and z of a generator explain: shares of variance, probes, transfer, paths, nearest examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_score
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP
from zsl_lib.learn.langevin import langevin
from zsl_lib.models.generator import conditioned, log_joint


class Shares(NamedTuple):
    """Parts of the variance of x, summed over dimensions, in squared units of x.

    between: Var_c E[x | c]; within: E_c Var[x | c], of a generator Var_z g; noise: σ² D.
    """

    between: float
    within: float
    noise: float = 0.0

    @property
    def total(self) -> float:
        return self.between + self.within + self.noise


def shares(groups: Sequence[Tensor]) -> Shares:
    """Law of total variance for classes of equal weight, without bias, from samples ``[n_c, D]`` of each.

    The variance of class *means of samples* is too large by (1 - 1/C) of the mean of s_c² / n_c, which is
    taken off; so ``between`` can come out below zero.

    Raises
    ------
    DataError: no class, or one with fewer than two examples.
    """
    sizes = [len(group) for group in groups]
    if min(sizes, default=0) < 2:
        raise DataError("shares: groups", found=f"sizes {sizes}", expected="classes of 2 or more examples")
    means = torch.stack([group.double().mean(0) for group in groups])
    inside = torch.stack([group.double().var(0).sum() for group in groups])
    excess = (1 - 1 / len(groups)) * (inside / torch.tensor(sizes)).mean()
    between = means.var(0, correction=0).sum() - excess
    return Shares(float(between), float(inside.mean()))


def model_shares(model: ABP, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Shares:
    """:func:`shares` of a fitted generator for classes ``semantics [C, K]``, by n draws of z for each."""
    made = model.sample(semantics, n, generator)
    between, within, _ = shares(list(made))
    return Shares(between, within, model.config.sigma**2 * made.shape[2])


def data_shares(dataset: ZSLDataset, index: Tensor) -> Shares:
    """:func:`shares` of the real examples ``index``."""
    labels = dataset.labels[index]
    return shares([dataset.x(index[labels == c]) for c in labels.unique()])


class Probe(NamedTuple):
    """Score of a linear probe and of the same probe with permuted targets, in per cent."""

    score: float
    control: float


def probe(z: Tensor, target: ArrayLike, classes: Tensor, *, seed: int = 0) -> Probe:
    """How well a linear map reads ``target [n]`` from latents ``z [n, d]`` *of other classes*.

    Five folds, no class in two of them. Numbers: R² of ridge regression, below 0 where it is worse than the
    mean. Names: accuracy of linear discriminant analysis. The control permutes the targets.
    """
    wanted, inputs = np.asarray(target), z.cpu().numpy()
    numeric = np.issubdtype(wanted.dtype, np.number)
    reader, scoring = (Ridge(), "r2") if numeric else (LinearDiscriminantAnalysis(), "accuracy")
    shuffled = np.random.default_rng(seed).permutation(wanted)
    folds = {"groups": classes.numpy(), "cv": GroupKFold(5), "scoring": scoring}
    return Probe(
        *(100 * float(cross_val_score(reader, inputs, t, **folds).mean()) for t in (wanted, shuffled))
    )


def infer(model: ABP, dataset: ZSLDataset, index: Tensor, *, steps: int = 150, seed: int = 0) -> Tensor:
    """z ``[n, d]`` of the examples ``index``, where Langevin chains from 0 end (Eq. 6), on the CPU."""
    c = dataset.semantics[dataset.labels[index]].to(model.device)
    x, mean, k = dataset.x(index).to(model.device), conditioned(model.net, c), model.config
    rng = torch.Generator(model.device).manual_seed(seed)
    start = torch.zeros(len(x), k.latent_dim, device=model.device)
    chain = langevin(
        lambda z: log_joint(x, mean(z), z, k.sigma), start, steps=steps, step_size=k.step_size, generator=rng
    )
    return chain.z.cpu()


class Transfer(NamedTuple):
    """Mean squared distance to the true examples of unseen classes, in each of F styles: ``[F]`` each.

    own: with the style's z; other: with the z of the next style; mean: with z = 0; prior: with z ~ N(0, I).
    identified: share (%) of true examples that are nearer to the one made with their own style's z than to
    those of all F - 1 others.
    """

    own: Tensor
    other: Tensor
    mean: Tensor
    prior: Tensor
    identified: Tensor


@torch.no_grad()
def transfer(model: ABP, dataset: ZSLDataset, styles: np.ndarray, z: Tensor, *, seed: int = 0) -> Transfer:
    """Makes each ``test_unseen`` example's class with the z of its style, and compares with the example.

    ``styles [N]`` names each example's style; row f of ``z [F, d]`` belongs to the f-th name, ascending,
    of those in ``test_unseen``.
    """
    index = dataset.test_unseen
    names, row = np.unique(styles[index.numpy()], return_inverse=True)
    if len(z) != len(names):
        raise DataError("transfer: z", found=f"{len(z)} rows", expected=f"{len(names)}, one a style")
    x, c, rows = dataset.x(index), dataset.semantics[dataset.labels[index]], torch.from_numpy(row)
    net_device, rng = model.device, torch.Generator().manual_seed(seed)

    def error(latent: Tensor) -> Tensor:
        return (x - model.net(c.to(net_device), latent.to(net_device)).cpu()).square().sum(1)

    def by_style(values: Tensor) -> Tensor:
        return torch.stack([values[rows == f].float().mean() for f in range(len(names))])

    every = torch.stack([error(one.expand(len(x), -1)) for one in z], 1)
    nothing, prior = torch.zeros(len(x), z.shape[1]), torch.randn(len(x), z.shape[1], generator=rng)
    found = every.gather(1, rows[:, None])[:, 0]
    other = every.gather(1, ((rows + 1) % len(names))[:, None])[:, 0]
    hits = 100 * (every.argmin(1) == rows).float()
    return Transfer(*map(by_style, (found, other, error(nothing), error(prior), hits)))


def style_latents(
    model: ABP, dataset: ZSLDataset, styles: np.ndarray, *, letters: int, seed: int = 0
) -> Tensor:
    """One z a style ``[F, d]``: the mean of :func:`infer` over ``letters`` examples of it in ``test_seen``.

    Styles are those of ``test_unseen``, by name ascending. A style's examples are drawn at random.
    """
    rng, index = torch.Generator().manual_seed(seed), dataset.test_seen
    chosen = []
    for name in np.unique(styles[dataset.test_unseen.numpy()]):
        of_style = index[torch.from_numpy(styles[index.numpy()] == name)]
        if not 1 <= letters <= len(of_style):
            expected = f"1 to {len(of_style)} for style {name}"
            raise DataError("style_latents: letters", found=letters, expected=expected)
        chosen.append(of_style[torch.randperm(len(of_style), generator=rng)[:letters]])
    z = infer(model, dataset, torch.cat(chosen), seed=seed)
    return z.unflatten(0, (len(chosen), letters)).mean(1)


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Points ``[m, d]`` at ``t [m]`` in [0, 1] on the arc from ``start [d]`` to ``end [d]``.

    The angle grows evenly (Shoemake 1985), and so does the length. Undefined for opposite directions.
    """
    a, b = start / start.norm(), end / end.norm()
    angle = torch.arccos((a @ b).clamp(-1, 1))
    t = t[:, None]
    if angle < 1e-4:
        direction = a.expand(len(t), -1)
    else:
        direction = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return direction * ((1 - t) * start.norm() + t * end.norm())


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Shares (%) of made examples ``[m, D]`` near real ones, and of real ``[n, D]`` near made ones.

    Near: inside the ball around some example of the other set that reaches to its k-th neighbour in its own
    set (Kynkäänniemi et al. 2019). Sets of one size, since balls shrink with it.
    """
    if not 1 <= k < min(len(real), len(made)):
        raise DataError("precision_recall: k", found=k, expected="1 or more, fewer than the examples")

    def inside(points: Tensor, others: Tensor) -> float:
        radius = torch.cdist(others, others).kthvalue(k + 1, dim=1).values  # the nearest is itself
        return 100 * float((torch.cdist(points, others) <= radius).any(1).float().mean())

    return inside(made, real), inside(real, made)
