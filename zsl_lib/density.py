"""How well a trained generator fits as a density p_θ(x | c): likelihood, noise, spread and latents.

Recognition (:mod:`zsl_lib.metrics`) looks at class means and their order; these look at the rest. All need
complete features: examples of which some are hidden raise :class:`~zsl_lib.errors.DataError`.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.abp import ABP
from zsl_lib.learn.likelihood import Joint, importance, laplace
from zsl_lib.models.generator import log_likelihood

NEWTON_STEPS = 4
"""To a posterior's mode; what is left of the way is the importance weights' business."""


def held_out(index: Tensor, n: int) -> Tensor:
    """At most n positions out of ``index``, evenly spaced, so that no class is left out by its place."""
    if n < 1:
        raise DataError("held_out: n", found=n, expected="1 or more")
    step = max(1, len(index) / n)
    return index[(torch.arange(min(n, len(index))) * step).long()]


def mean_log_likelihood(
    model: ABP,
    dataset: ZSLDataset,
    index: Tensor,
    *,
    sigma: float | None = None,
    samples: int = 50,
    seed: int = 0,
) -> float:
    """Mean of log p_θ(x | c) over the examples ``index``, in nats an example, normalised (Eq. 3–4).

    By importance sampling around the posterior's mode, or exactly for a model without latents.
    ``sigma`` replaces the model's own σ.
    """
    x, c = _on(model, dataset, index)
    sigma = model.config.sigma if sigma is None else sigma
    if model.config.latent_dim == 0:
        with torch.no_grad():
            return float(log_likelihood(x, model.net(c, x[:, :0]), sigma).mean())
    joint = Joint(model.net, x, c, sigma, latent_dim=model.config.latent_dim)
    rng = torch.Generator(model.device).manual_seed(seed)
    proposal = laplace(joint, steps=NEWTON_STEPS)
    return float(importance(joint, *proposal, samples=samples, generator=rng).log_prob.mean())


def fitted_sigma(
    model: ABP, dataset: ZSLDataset, index: Tensor, *, samples: int = 20, seed: int = 0
) -> float:
    """The σ in [0.01, 1] under which the examples ``index`` are likeliest, θ as it is (Brent, on log σ)."""

    def cost(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        return -mean_log_likelihood(model, dataset, index, sigma=sigma, samples=samples, seed=seed)

    best = minimize_scalar(cost, bounds=(math.log(0.01), 0.0), method="bounded", options={"xatol": 0.05})
    return math.exp(best.x)


def spread(model: ABP, dataset: ZSLDataset, index: Tensor, *, samples: int = 300, seed: int = 0) -> float:
    """Variance within a class, summed over dimensions: synthetic (without ε) over real, median over classes.

    1: as wide as the real classes; 0: each class is a point. Classes with fewer than 5 examples in
    ``index`` are left out.
    """
    _complete(dataset, index)
    labels = dataset.labels[index]
    classes = [int(c) for c in labels.unique() if int((labels == c).sum()) >= 5]
    if not classes:
        raise DataError("spread: index", found="no class with 5 examples", expected="at least one")
    real = torch.stack([dataset.x(index[labels == c]).var(0).sum() for c in classes])
    made = model.sample(dataset.semantics[classes], samples, torch.Generator().manual_seed(seed))
    return float((made.var(1).sum(1) / real).median())


def latent_gap(model: ABP, dataset: ZSLDataset, n: int = 50) -> float:
    """How far the persistent latents are from posterior samples, in nats an example.

    max_z log p(x, z | c) − d/2 − log p(x, z_i | c), averaged over n training examples: a sample of a Gaussian
    posterior lies d/2 below its mode on average, so 0 is right, more is less likely than a sample should
    be, and −d/2 is the mode.
    """
    rows = held_out(torch.arange(len(dataset.trainval)), n)
    x, c = _on(model, dataset, dataset.trainval[rows])
    d = model.config.latent_dim
    if d == 0:
        return 0.0
    joint = Joint(model.net, x, c, model.config.sigma, latent_dim=d)
    both = torch.stack([laplace(joint, steps=NEWTON_STEPS)[0], model.z[rows.to(model.device)]])
    with torch.no_grad():
        mode, kept = joint.log_joint(both)
    return float((mode - kept).mean()) - d / 2


def _complete(dataset: ZSLDataset, index: Tensor) -> None:
    if dataset.mask is not None and not bool(dataset.mask[index].all()):
        hint = "zsl_lib.impute fills them"
        raise DataError(f"{dataset.name}: mask", found="hidden features", expected="none", hint=hint)


def _on(model: ABP, dataset: ZSLDataset, index: Tensor) -> tuple[Tensor, Tensor]:
    _complete(dataset, index)
    c = dataset.semantics[dataset.labels[index]]
    return dataset.x(index).to(model.device), c.to(model.device)
