"""Estimators of the observed-data log-likelihood log p_θ(x | c) of paper 1, Eq. 3.

.. math::  p_θ(x | c) = ∫ p(z) N(x; g_θ(c, z), σ² I) dz

has no closed form for a network. :func:`quadrature` is exact to its grid for d ≤ 2. :func:`importance`
(around :func:`laplace`'s mode) and :func:`annealed` average weights w with E[w] = p_θ(x | c), so
E[log mean w] ≤ log p_θ(x | c): both are lower bounds in expectation. The gap is about half the squared
standard error, so a small error also means a small bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zsl_lib.errors import DataError
from zsl_lib.models.generator import log_likelihood, log_prior


class Joint:
    """log p_θ(x, z | c) of n examples, normalised, for any number m of latents each.

    Parameters
    ----------
    net: any ``nn.Module`` g(c, z). If it has ``condition`` and ``decode`` (see
        :class:`~zsl_lib.models.generator.Generator`), c's share is computed once.
    x, c: ``[n, D]`` and ``[n, K]``, on the device of ``net``. sigma: σ > 0.
    mask: True where x is observed, ``[n, D]``; None: everywhere.
    latent_dim: d; by default ``net.latent_dim``.
    rows: largest number of latents that go through the network at a time. It bounds memory and changes no
        result.

    Raises
    ------
    DataError: shapes that disagree, σ ≤ 0, or no d.
    """

    def __init__(
        self,
        net: nn.Module,
        x: Tensor,
        c: Tensor,
        sigma: float,
        mask: Tensor | None = None,
        *,
        latent_dim: int | None = None,
        rows: int = 2048,
    ) -> None:
        if not sigma > 0:
            raise DataError("Joint: sigma", found=sigma, expected="a positive number")
        if x.ndim != 2 or c.ndim != 2 or len(x) != len(c):
            raise DataError("Joint", found=f"x {_shape(x)}, c {_shape(c)}", expected="x [n, D], c [n, K]")
        if mask is not None and (mask.shape != x.shape or mask.dtype != torch.bool):
            raise DataError(
                "Joint: mask", found=f"{mask.dtype} {_shape(mask)}", expected=f"torch.bool {_shape(x)}"
            )
        d = getattr(net, "latent_dim", None) if latent_dim is None else latent_dim
        if not isinstance(d, int) or d < 1:
            raise DataError("Joint: latent_dim", found=d, expected="d, at least 1")
        self.net, self.x, self.c, self.sigma, self.mask = net, x, c, sigma, mask
        self.latent_dim, self.rows = d, max(1, rows)
        condition, decode = getattr(net, "condition", None), getattr(net, "decode", net)
        with torch.no_grad():
            self._from_c: Tensor = c if condition is None else condition(c)
        self._decode: Callable[[Tensor, Tensor], Tensor] = net if condition is None else decode

    def __len__(self) -> int:
        return len(self.x)

    def mean(self, z: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """g_θ(c, z) ``[m, n, D]`` of latents ``[m, n, d]``; ``rows`` picks examples."""
        from_c = self._from_c[rows].expand(len(z), -1, -1).flatten(0, 1)
        return self._decode(from_c, z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), ``[m, n]`` for ``[m, n, d]``."""
        return log_prior(z)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p_θ(x | c, z), ``[m, n]`` for ``[m, n, d]``."""
        self._check(z)
        return torch.cat(
            [log_likelihood(self.x, self.mean(part), self.sigma, self.mask) for part in self._parts(z)]
        )

    def log_joint(self, z: Tensor) -> Tensor:
        """log p_θ(x, z | c), ``[m, n]`` for ``[m, n, d]``."""
        return self.log_likelihood(z) + self.log_prior(z)

    def slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p_θ(x | c, z) ``[m, n]`` and its gradient in z ``[m, n, d]``, neither with a graph."""
        self._check(z)
        values, gradients = [], []
        for part in self._parts(z):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                value = log_likelihood(self.x, self.mean(part), self.sigma, self.mask)
                (gradient,) = torch.autograd.grad(value.sum(), part)
            values.append(value.detach())
            gradients.append(gradient)
        return torch.cat(values), torch.cat(gradients)

    def normal(self, m: int, generator: torch.Generator | None) -> Tensor:
        """m prior draws for each example, ``[m, n, d]``."""
        shape = m, len(self.x), self.latent_dim
        return torch.randn(shape, generator=generator, device=self.x.device, dtype=self.x.dtype)

    def _parts(self, z: Tensor) -> tuple[Tensor, ...]:
        return z.split(max(1, self.rows // max(1, len(self.x))))

    def _check(self, z: Tensor) -> None:
        if z.ndim != 3 or z.shape[1:] != (len(self.x), self.latent_dim):
            expected = f"[m, {len(self.x)}, {self.latent_dim}]"
            raise DataError("Joint: z", found=_shape(z), expected=expected)


class Estimate(NamedTuple):
    """What an average of importance weights says about log p_θ(x | c).

    log_prob: log of the mean weight, ``[n]``. Its expectation is at most the true value.
    error: its standard error by the delta method, sd(w) / (√m · mean w), ``[n]``. It means something only
    while ``ess`` is more than a few.
    ess: effective sample size (Σw)² / Σw² of m, ``[n]``.
    """

    log_prob: Tensor
    error: Tensor
    ess: Tensor

    @classmethod
    def of(cls, log_weights: Tensor) -> Estimate:
        """From log-weights ``[m, n]``, m ≥ 2."""
        m = len(log_weights)
        share = log_weights.softmax(0)
        ess = 1 / share.square().sum(0)
        error = ((m / ess - 1).clamp(min=0) / (m - 1)).sqrt()  # the variance of w over its squared mean
        return cls(log_weights.logsumexp(0) - math.log(m), error, ess)


@torch.no_grad()
def quadrature(joint: Joint, *, limit: float = 6.0, points: int = 301) -> Tensor:
    """log p_θ(x | c) ``[n]`` by the trapezoidal rule on a grid over [−limit, limit]^d, for d ≤ 2.

    The grid's spacing 2·limit/(points − 1) should be well below the posterior's standard deviations.

    Raises
    ------
    DataError: d > 2, limit ≤ 0 or points < 2.
    """
    if joint.latent_dim > 2:
        raise DataError("quadrature: latent_dim", found=joint.latent_dim, expected="1 or 2")
    if not limit > 0 or points < 2:
        raise DataError(
            "quadrature", found=f"limit {limit}, points {points}", expected="limit > 0, points ≥ 2"
        )
    axis = torch.linspace(-limit, limit, points, dtype=joint.x.dtype, device=joint.x.device)
    grid = torch.cartesian_prod(*[axis] * joint.latent_dim).view(-1, joint.latent_dim)
    log_p = joint.log_joint(grid[:, None].expand(-1, len(joint), -1))
    end = (grid.abs() >= limit * (1 - 1e-6)).sum(1, keepdim=True)  # an end of an axis counts half
    cell = joint.latent_dim * math.log(2 * limit / (points - 1))
    return (log_p - end * math.log(2)).logsumexp(0) + cell


@torch.no_grad()
def laplace(
    joint: Joint, *, steps: int = 30, starts: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A mode of the posterior and the Gauss–Newton covariance there: ``mean [n, d]``, ``cov [n, d, d]``.

    Each step solves (I + JᵀJ/σ²) δ = ∇_z log p_θ(x, z | c) with J = ∂g_θ/∂z and keeps the best of z + δ/2^k,
    so that log p never falls; it can stop at a kink of a ReLU. At the end, cov = (I + JᵀJ/σ²)⁻¹: both are
    exact if g is linear in z.

    Parameters
    ----------
    steps: at most this many; fewer once no example moves by 10⁻⁵.
    starts: the best mode of so many starts: z = 0, then draws from the prior by ``generator``.

    Raises
    ------
    DataError: negative steps, or no start.
    """
    if steps < 0 or starts < 1:
        raise DataError("laplace", found=f"steps {steps}, starts {starts}", expected="steps ≥ 0, starts ≥ 1")
    first = joint.x.new_zeros(1, len(joint), joint.latent_dim)
    if starts > 1:
        first = torch.cat([first, joint.normal(starts - 1, generator)])
    z = _best(joint, torch.stack([_climb(joint, start, steps) for start in first]))
    return z, torch.linalg.inv(_gauss_newton(joint, z)[1])


def _climb(joint: Joint, z: Tensor, steps: int) -> Tensor:
    """Gauss–Newton ascent with a search along each step, from z ``[n, d]``."""
    scales = torch.tensor([1, 0.5, 0.25, 0.1, 0.02, 0], dtype=z.dtype, device=z.device)[:, None, None]
    for _ in range(steps):
        gradient, precision = _gauss_newton(joint, z)
        last, z = z, _best(joint, z + scales * torch.linalg.solve(precision, gradient))
        if bool(((z - last).abs() < 1e-5).all()):
            break
    return z


def _best(joint: Joint, z: Tensor) -> Tensor:
    """Of latents ``[m, n, d]``, each example's with the largest log p_θ(x, z | c), ``[n, d]``."""
    best = joint.log_joint(z).nan_to_num(-math.inf).argmax(0)
    return z[best, torch.arange(z.shape[1], device=z.device)]


def _gauss_newton(joint: Joint, z: Tensor) -> tuple[Tensor, Tensor]:
    """∇_z log p_θ(x, z | c) ``[n, d]`` and I + JᵀJ/σ² ``[n, d, d]`` at z ``[n, d]``."""
    d = joint.latent_dim
    gradients, precisions = [], []
    for rows in _slices(len(z), max(1, joint.rows // d)):
        mean, jacobian = _jacobian(joint, z[rows], rows)
        residual = joint.x[rows] - mean
        if joint.mask is not None:
            seen = joint.mask[rows]
            residual, jacobian = residual.where(seen, 0.0), jacobian.where(seen, 0.0)
        gradients.append(torch.einsum("dnD,nD->nd", jacobian, residual) / joint.sigma**2 - z[rows])
        gram = torch.einsum("dnD,enD->nde", jacobian, jacobian) / joint.sigma**2
        precisions.append(gram + torch.eye(d, dtype=z.dtype, device=z.device))
    return torch.cat(gradients), torch.cat(precisions)


def _jacobian(joint: Joint, z: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """g_θ(c, z) ``[n, D]`` and its derivative in each latent coordinate ``[d, n, D]``, in forward mode."""

    def along(direction: Tensor) -> Any:
        return torch.func.jvp(lambda at: joint.mean(at[None], rows)[0], (z,), (direction.expand_as(z),))

    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    mean, jacobian = torch.func.vmap(along)(basis)
    return mean[0], jacobian


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


@torch.no_grad()
def importance(
    joint: Joint,
    mean: Tensor,
    cov: Tensor,
    *,
    samples: int,
    generator: torch.Generator | None = None,
    inflate: float = 1.0,
    dof: int | None = 20,
) -> Estimate:
    """Importance sampling of log p_θ(x | c) from a Student t around a mode: a lower bound in expectation.

    Parameters
    ----------
    mean, cov: ``[n, d]`` and ``[n, d, d]``, e.g. of :func:`laplace`.
    samples: m ≥ 2 weights an example.
    inflate: factor > 0 of ``cov``. dof: degrees of freedom ≥ 1; None is the normal. Few make heavy tails,
        which keep the weights bounded where the posterior is wider than ``cov`` says.

    Raises
    ------
    DataError: fewer than 2 samples, a factor that is not positive, or dof < 1.
    """
    if samples < 2 or not inflate > 0 or (dof is not None and dof < 1):
        found = f"samples {samples}, inflate {inflate}, dof {dof}"
        raise DataError("importance", found=found, expected="samples ≥ 2, inflate > 0, dof ≥ 1")
    chol = torch.linalg.cholesky(inflate * cov)
    white = joint.normal(samples, generator)
    if dof is not None:
        white = white / _root_mean_square(white.shape[:2], dof, white, generator)
    z = mean + torch.einsum("nde,mne->mnd", chol, white)
    log_q = _log_student(white, dof) - chol.diagonal(dim1=1, dim2=2).log().sum(1)
    return Estimate.of(joint.log_joint(z) - log_q)


def _root_mean_square(shape: torch.Size, dof: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """√(χ²_dof / dof), of the given shape and a last dimension of 1."""
    total = like.new_zeros(shape)
    for _ in range(dof):
        total += torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype).square_()
    return (total / dof).sqrt()[..., None]


def _log_student(white: Tensor, dof: int | None) -> Tensor:
    """Log-density of the standard d-variate Student t, ``[...]`` for ``[..., d]``; None: standard normal."""
    if dof is None:
        return log_prior(white)
    d = white.shape[-1]
    constant = math.lgamma((dof + d) / 2) - math.lgamma(dof / 2) - d / 2 * math.log(dof * math.pi)
    return constant - (dof + d) / 2 * torch.log1p(white.square().sum(-1) / dof)


class State(NamedTuple):
    """Where chains are: z ``[m, n, d]``, with log p_θ(x | c, z) ``[m, n]`` and its gradient ``[m, n, d]``."""

    z: Tensor
    log_likelihood: Tensor
    gradient: Tensor

    @classmethod
    def at(cls, joint: Joint, z: Tensor) -> State:
        return cls(z, *joint.slope(z))


def hmc(
    joint: Joint,
    state: State,
    *,
    step: Tensor,
    leapfrog: int,
    beta: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[State, Tensor]:
    """A Hamiltonian step that leaves p(z) p_θ(x | c, z)^β invariant, and its acceptance chance ``[m, n]``.

    Parameters
    ----------
    step: a matrix B an example, ``[n, d, d]``: positions move by B p, momenta by Bᵀ ∇. s·I is the usual step
        of size s; s times a root of the posterior's covariance moves as fast in each direction.
    leapfrog: gradients a step; 1 is the Metropolis-adjusted Langevin step (MALA).
    beta: 1 for the posterior, 0 for the prior.
    """

    def kick(z: Tensor, gradient: Tensor) -> Tensor:
        return torch.einsum("nde,mnd->mne", step, beta * gradient - z)

    z, log_lik, gradient = state
    start = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    p = start + kick(z, gradient) / 2
    for i in range(leapfrog):
        z = z + torch.einsum("nde,mne->mnd", step, p)
        log_lik, gradient = joint.slope(z)
        p = p + kick(z, gradient) / (1 if i + 1 < leapfrog else 2)
    before = beta * state.log_likelihood + log_prior(state.z) + log_prior(start)
    after = beta * log_lik + log_prior(z) + log_prior(p)
    chance = (after - before).exp().clamp(max=1).nan_to_num(0.0)
    uniform = torch.rand(chance.shape, generator=generator, device=z.device, dtype=z.dtype)
    new, accept = State(z, log_lik, gradient), uniform < chance
    chosen = (
        torch.where(accept if a.ndim == 2 else accept[..., None], a, b)
        for a, b in zip(new, state, strict=True)
    )
    return State(*chosen), chance


@torch.no_grad()
def annealed(
    joint: Joint,
    *,
    chains: int,
    temperatures: int | Tensor,
    step_size: float = 0.5,
    steps_per_temperature: int = 1,
    leapfrog: int = 3,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Annealed importance sampling (Neal 2001) of log p_θ(x | c) from prior to posterior.

    Through the laws p(z) p_θ(x | c, z)^β with β rising from 0 to 1; the weights' mean is p_θ(x | c) exactly,
    so that the estimate is a lower bound in expectation. The steps are :func:`hmc`. Their size is adapted in
    a first run of a few chains that is then thrown away (acceptance 0.7, one size an example and a
    temperature), since sizes that depend on the chains themselves would spoil the mean.

    Parameters
    ----------
    chains: m ≥ 2 an example. temperatures: T ≥ 1 of them, at β = (t/T)⁴, or the βs, increasing to 1 ``[T]``.
    step_size: first guess, in units of z. steps_per_temperature, leapfrog: Hamiltonian steps at each
        temperature and gradients in each, both ≥ 1.

    Raises
    ------
    DataError: a number out of these ranges.
    """
    numbers = {"steps_per_temperature": steps_per_temperature, "leapfrog": leapfrog}
    if chains < 2 or not step_size > 0 or min(numbers.values()) < 1:
        found = f"chains {chains}, step_size {step_size}, {numbers}"
        raise DataError("annealed", found=found, expected="chains ≥ 2, step_size > 0, the others ≥ 1")
    betas = _betas(temperatures)
    options: dict[str, Any] = {"moves": steps_per_temperature, "leapfrog": leapfrog, "generator": generator}
    roots = _roots(joint, betas)
    pilot = State.at(joint, joint.normal(min(chains, 8), generator))
    longest = math.pi / 2 / leapfrog  # a quarter turn; half a turn would only mirror z
    steps, size = [], joint.x.new_full((len(joint),), min(step_size, longest))
    for beta, root in zip(betas, roots, strict=True):
        pilot, chance = _move(joint, pilot, size[:, None, None] * root, beta, **options)
        size = (size * (0.5 * (chance - 0.7)).exp()).clamp(1e-4, longest)
        steps.append(size[:, None, None] * root)
    state = State.at(joint, joint.normal(chains, generator))
    log_weights, last = torch.zeros_like(state.log_likelihood), 0.0
    for beta, step in zip(betas, steps, strict=True):
        log_weights += (beta - last) * state.log_likelihood
        state, _ = _move(joint, state, step, beta, **options)
        last = beta
    return Estimate.of(log_weights)


def _roots(joint: Joint, betas: list[float]) -> list[Tensor]:
    """A root of (I + β JᵀJ/σ²)⁻¹ for each β, ``[n, d, d]``, with J at :func:`laplace`'s mode."""
    mean, _ = laplace(joint)
    identity = torch.eye(joint.latent_dim, dtype=mean.dtype, device=mean.device)
    gram = _gauss_newton(joint, mean)[1] - identity
    values, vectors = torch.linalg.eigh(gram)
    return [vectors * (1 + beta * values.clamp(min=0)).rsqrt()[:, None] for beta in betas]


def _move(
    joint: Joint,
    state: State,
    step: Tensor,
    beta: float,
    *,
    moves: int,
    leapfrog: int,
    generator: torch.Generator | None,
) -> tuple[State, Tensor]:
    """``moves`` Hamiltonian steps at β; also their mean acceptance probability an example ``[n]``."""
    chances = []
    for _ in range(moves):
        state, chance = hmc(joint, state, step=step, leapfrog=leapfrog, beta=beta, generator=generator)
        chances.append(chance.mean(0))
    return state, torch.stack(chances).mean(0)


def _betas(temperatures: int | Tensor) -> list[float]:
    if isinstance(temperatures, int):
        if temperatures < 1:
            raise DataError("annealed: temperatures", found=temperatures, expected="1 or more")
        return [(t / temperatures) ** 4 for t in range(1, temperatures + 1)]
    betas = temperatures.double()
    rises = betas.ndim == 1 and len(betas) and betas[0] >= 0 and bool((betas.diff() > 0).all())
    if not rises or betas[-1] != 1:
        raise DataError("annealed: temperatures", found=betas.tolist(), expected="βs that rise to 1")
    return betas.tolist()


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))
