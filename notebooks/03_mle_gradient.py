# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The gradient of the likelihood
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - say what maximum likelihood minimises, and measure it;
# - derive the identity that turns the gradient of an integral into a posterior mean, and check it in closed
#   form, by quadrature and by Markov chains;
# - say what a wrong $z$ does to learning, and what a single right one costs.
#
# You need [The conditional generator](02_conditional_generator).
# :::
#
# **The question.** Features come without their $z$. The likelihood of $x$ alone is an integral over all $z$, which a network
# makes impossible to solve. Learning needs only its gradient in $\theta$. Can one have the gradient without the integral?

# %% tags=["parameters"]
dataset = "hangul"  # data set: hangul, CUB, AWA1, AWA2, SUN, APY, FLO, CUB100, or a folder of yours
semantics = "att"  # class descriptions: att (attributes) or sent (1024-d sentences; CUB, CUB100)
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, else data/
seed = 0  # seed of weights, latents, chains and samples; 0 or larger
epochs = 5  # passes over the training set; 50 in the paper
latent_dim = 10  # d, the dimension of z; 10 in the paper
hidden = 512  # width of the generator's hidden layer; 4096 in the paper
sigma = 0.3  # standard deviation of the noise, features scaled to [0, 1]; 0.3 in the paper
langevin_steps = 10  # l, Langevin steps a visit; 10 in the paper
step_size = 0.3  # s, size of a Langevin step in units of z; 0.3 in the paper
chains = 32  # long chains an example, 2 or more
chain_steps = 1000  # steps of a long chain, 20 or more; a fifth is dropped as burn-in
device = "auto"  # where to train: auto (CUDA if there is one), cpu or cuda

# %%
import copy
import math
import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.integrate import quad
from torch.nn.functional import cosine_similarity, leaky_relu

from zsl_lib import plots
from zsl_lib.data import load
from zsl_lib.data.toy import LinearGaussian, linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig, langevin, mala
from zsl_lib.learn.likelihood import Joint, importance, laplace, quadrature
from zsl_lib.models import Generator, log_joint
from zsl_lib.models.generator import log_likelihood, log_prior

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version
    import arviz as az

plots.style()
data = load(dataset, root or None, semantics=semantics).scaled()
paper = ABPConfig(latent_dim, hidden, sigma, langevin_steps, step_size, epochs=epochs)
if chains < 2 or chain_steps < 20:
    found = f"{chains} chains of {chain_steps} steps"
    raise DataError("long chains", found=found, expected="2 or more, of 20 or more")
data


# %% [markdown]
# ## What maximum likelihood minimises
#
# :::{admonition} Paper 1, Eq. 3 and 4
# :class: note
#
# $$
# \log p_\theta(x\mid c) = \log\int p_\theta(x\mid z, c)\,p(z)\,dz, \qquad
# L(\theta) = \sum_{i=1}^n\log p_\theta(x_i\mid c_i).
# $$ (eq-mle-marginal)
# :::
#
# Let $q(x\mid c)$ be the distribution that the data come from. Its Kullback–Leibler divergence from the model is
#
# $$
# \mathrm{KL}\bigl(q\,\Vert\,p_\theta\bigr) = \underbrace{\mathbb E_q\log q(x\mid c)}_{-\mathrm H(q)} - \mathbb E_q\log p_\theta(x\mid c).
# $$ (eq-mle-kl)
#
# The first term does not know $\theta$. The second is what $L(\theta)/n$ estimates: the mean of $\log p_\theta$ over a sample of $q$. So
#
# $$
# \tfrac1n L(\theta) + \mathrm H(q) \;\xrightarrow{\;n\to\infty\;}\; -\mathrm{KL}\bigl(q\,\Vert\,p_\theta\bigr),
# $$ (eq-mle-limit)
#
# and to maximise the likelihood is, up to sampling error, to minimise $\mathrm{KL}(q\,\Vert\,p_\theta)$: the paper's goal in §3.1.
#
# The linear-Gaussian world knows each of these numbers. With $S = WW^\top+\sigma^2I$ and $\mu = Ac + b$,
#
# $$
# \mathrm{KL} = \tfrac12\Bigl[\mathrm{tr}\bigl(S_p^{-1}S_q\bigr) + (\mu_p-\mu_q)^\top S_p^{-1}(\mu_p-\mu_q) - D
# + \log\tfrac{\det S_p}{\det S_q}\Bigr].
# $$ (eq-mle-gaussian-kl)

# %%
def kl(q, p, c):
    """KL(q(x|c) ‖ p(x|c)) of two linear-Gaussian worlds, one value a row of c."""
    Sq, Sp = q.covariance(), p.covariance()
    gap = p.mean(c) - q.mean(c)
    shape = torch.linalg.solve(Sp, Sq).trace() - len(Sq) + Sp.logdet() - Sq.logdet()
    return ((gap @ torch.linalg.inv(Sp)) * gap).sum(1) / 2 + shape / 2


def entropy(q):
    """H(q(·|c)) in nats, the same for each c."""
    return (q.covariance().logdet() + len(q.b) * (1 + math.log(2 * math.pi))) / 2


def rng(offset=0):
    return torch.Generator().manual_seed(seed + offset)


# %% [markdown]
# Take one world as $q$, draw $n$ examples of it, and walk $\theta$ along a line through the truth, $t = 0$, towards another
# world, $t=1$. At each $t$, compare the sample's $L(\theta)/n + \mathrm H(q)$, with its standard error, and the exact $-\mathrm{KL}$.

# %%
options = {"sigma": sigma, "dtype": torch.float64}
true, other = (linear_gaussian(8, 2, 3, generator=rng(i), **options) for i in (1, 2))


def between(t):
    mix = ((1 - t) * getattr(true, k) + t * getattr(other, k) for k in ("W", "A", "b"))
    return LinearGaussian(*mix, sigma)


n, steps = 400, torch.linspace(-0.1, 0.1, 11)
c = torch.rand(n, 3, generator=rng(3), dtype=torch.float64)
x, _ = true.sample(c, rng(4))
rows = []
for t in steps.tolist():
    log_p = between(t).log_prob(x, c)
    rows.append([t, (log_p.mean() + entropy(true)).item(), (log_p.std() / n**0.5).item()])
    rows[-1] += [-kl(true, between(t), c).mean().item()]
walk = pd.DataFrame(rows, columns=["t", "sample", "error", "exact"])
z_scores = (walk["sample"] - walk["exact"]) / walk["error"]

# %% mystnb={"image": {"alt": "A parabola-like curve of minus the KL divergence with its top, zero, at the true parameters; dots with error bars from a sample of four hundred lie along it, all shifted to the same side."}}
fig, ax = plt.subplots(figsize=(6, 3.2))
fine = torch.linspace(-0.1, 0.1, 101)
exact = [-kl(true, between(t), c).mean() for t in fine.tolist()]
ax.plot(fine, exact, color="black", label=r"$-\mathrm{KL}(q\,\Vert\,p_\theta)$, closed form")
label = r"$L(\theta)/n + \mathrm{H}(q)$, sample of " + str(n)
ax.errorbar(walk["t"], walk["sample"], walk["error"], fmt="o", ms=4, label=label)
ax.set(xlabel="$t$ (0: the true $\\theta$)", ylabel="nats an example")
ax.legend(loc="lower center")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
print("all within 4 standard errors:", bool((z_scores.abs() < 4).all()))


# %% [markdown]
# The dots follow the curve. They err together, because each $t$ uses the same sample; what matters to learning is
# where the top is, and that hardly suffers.
#
# ## The identity
#
# :::{admonition} Paper 1, Eq. 5
# :class: note
#
# $$
# \frac{\partial}{\partial\theta}\log p_\theta(x\mid c)
# = \frac{1}{p_\theta(x\mid c)}\frac{\partial}{\partial\theta}p_\theta(x\mid c)
# = \mathbb E_{p_\theta(z\mid x, c)}\Bigl[\frac{\partial}{\partial\theta}\log p_\theta(x, z\mid c)\Bigr].
# $$ (eq-mle-identity)
# :::
#
# The step in the middle is short. Differentiate under the integral, and use $\nabla p = p\,\nabla\log p$:
#
# $$
# \begin{aligned}
# \nabla_\theta\log p_\theta(x\mid c)
# &= \frac{1}{p_\theta(x\mid c)}\int \nabla_\theta\,p_\theta(x, z\mid c)\,dz \\
# &= \int \frac{p_\theta(x, z\mid c)}{p_\theta(x\mid c)}\,\nabla_\theta\log p_\theta(x, z\mid c)\,dz,
# \end{aligned}
# $$ (eq-mle-derivation)
#
# and the fraction is $p_\theta(z\mid x, c)$, by Bayes' rule. Differentiating under the integral is allowed here: the density falls
# like a Gaussian in $z$, and its gradient grows like a polynomial. At the kinks of $g_\theta$ there is no gradient, but they have volume 0.
#
# The identity is Fisher's {cite}`fisher1925theory`. The integral is gone; what is left is a mean over the posterior, and means can be had from samples.
#
# **EM is the same identity.** Let $\rho(z)$ be any density. By Jensen's inequality
#
# $$
# \log p_\theta(x\mid c) \ge \mathbb E_{\rho}\log p_\theta(x, z\mid c) + \mathrm H(\rho),
# \qquad\text{with gap } \mathrm{KL}\bigl(\rho\,\Vert\,p_\theta(z\mid x, c)\bigr).
# $$ (eq-mle-bound)
#
# EM {cite}`dempster1977maximum` takes the posterior at the current $\theta'$ as $\rho$. Then the gap is 0 at $\theta = \theta'$, and as it is never negative, its gradient is 0
# there too. Bound and likelihood touch, with the same slope: {eq}`eq-mle-identity`. To see it, scale $W$ by $t$ in the toy world, where both are in closed form.

# %%
def bound(p, at, x, c):
    """E log p(x, z|c) + H under the posterior of the world `at`; one value a row of x."""
    m, cov = at.posterior(x, c)
    r, D, d = x - p.mean(c) - m @ p.W.T, x.shape[1], m.shape[1]
    square = r.square().sum(1) + (p.W @ cov @ p.W.T).trace()
    log_x = -square / (2 * p.sigma**2) - D / 2 * math.log(2 * math.pi * p.sigma**2)
    log_z = -(m.square().sum(1) + cov.trace() + d * math.log(2 * math.pi)) / 2
    return log_x + log_z + (cov.logdet() + d * (1 + math.log(2 * math.pi))) / 2


def scaled_W(t):
    return LinearGaussian(t * true.W, true.A, true.b, sigma)


# %% mystnb={"image": {"alt": "The mean log-likelihood as a curve over the scale of W, with its top near one. Three lower curves, one for each current scale, touch it at one point each and fall below it elsewhere."}}
fig, ax = plt.subplots(figsize=(6, 3.2))
ts = torch.linspace(0.35, 2, 100).tolist()
level = [scaled_W(t).log_prob(x, c).mean() for t in ts]
ax.plot(ts, level, color="black", lw=2, label=r"$L(\theta)/n$")
for i, at in enumerate((0.6, 1.0, 1.5)):
    ax.plot(ts, [bound(scaled_W(t), scaled_W(at), x, c).mean() for t in ts], f"C{i}")
    ax.plot(at, scaled_W(at).log_prob(x, c).mean(), f"C{i}o", label=rf"bound, $\theta'$ at {at}")
ax.set(xlabel="scale of $W$", ylabel="nats an example")
ax.set_ylim(min(level).item() - 3, max(level).item() + 1)
ax.legend()
plt.show()


# %% [markdown]
# ## Check 1: exactly, on a linear generator
#
# For $g = Ac + Wz + b$ the posterior is $\mathcal N(\mu, \Sigma)$, and the expectation in {eq}`eq-mle-identity` needs only
# $\mathbb E z = \mu$ and $\mathbb E zz^\top = \Sigma + \mu\mu^\top$. With $r = x - Ac - b$:
#
# $$
# \begin{aligned}
# \mathbb E\,\nabla_W\log p &= \bigl(r\,\mathbb E z^\top - W\,\mathbb E zz^\top\bigr)/\sigma^2, \\
# \mathbb E\,\nabla_b\log p &= \bigl(r - W\,\mathbb E z\bigr)/\sigma^2, \qquad
# \mathbb E\,\nabla_A\log p = \bigl(r - W\,\mathbb E z\bigr)c^\top/\sigma^2.
# \end{aligned}
# $$ (eq-mle-linear)
#
# The other side of the identity is autograd's, through the marginal density: a Cholesky factor of $WW^\top+\sigma^2I$, and no $z$ in it.

# %%
def expected_gradient(world, x, c, mean_z, mean_zz):
    """E ∇ log p(x, z|c) in W, A, b, summed over rows; E z is [n, d], E zzᵀ [n, d, d]."""
    r = x - world.mean(c)
    error = (r - mean_z @ world.W.T) / world.sigma**2
    in_W = (r.T @ mean_z - world.W @ mean_zz.sum(0)) / world.sigma**2
    return in_W, error.T @ c, error.sum(0)


def moments(world, x, c):
    """E z and E zzᵀ under the posterior."""
    m, cov = world.posterior(x, c)
    return m, cov + m[:, :, None] * m[:, None, :]


# %%
# NBVAL_CHECK_OUTPUT
theta = [p.clone().requires_grad_() for p in (other.W, other.A, other.b)]
marginal = LinearGaussian(*theta, sigma).log_prob(x, c).sum()
by_autograd = torch.autograd.grad(marginal, theta)
by_identity = expected_gradient(other, x, c, *moments(other, x, c))
for name, a, b in zip("WAb", by_autograd, by_identity, strict=True):
    off = (a - b).norm() / a.norm()
    print(f"gradient in {name}: relative difference below 1e-9: {bool(off < 1e-9)}")


# %% [markdown]
# ## Check 2: by quadrature, on a bent generator
#
# With $d\le2$ the integral of {eq}`eq-mle-marginal` is a sum over a grid of points $z_k$, each with the volume $v$ of its cell:
#
# $$
# \log p_\theta(x\mid c) \approx \log\sum_k v\,p_\theta(x, z_k\mid c), \qquad
# p_\theta(z_k\mid x, c)\,v \approx \frac{p_\theta(x, z_k\mid c)}{\sum_j p_\theta(x, z_j\mid c)}.
# $$ (eq-mle-grid)

# %%
def on_grid(net, x, c, points, limit=7.0):
    """log p(x|c) and E ∇θ log p(x, z|c) for one example x [1, D], c [1, K], on a grid of z."""
    axis = torch.linspace(-limit, limit, points, dtype=x.dtype)
    d = net.latent_dim
    z = torch.cartesian_prod(*[axis] * d).view(-1, d)
    mean = net(c.expand(len(z), -1), z)
    log_p = log_likelihood(x, mean, sigma) + log_prior(z)  # log p(x, z_k | c)
    log_marginal = log_p.logsumexp(0) + d * math.log(2 * limit / (points - 1))
    posterior = log_p.softmax(0).detach()  # weights that autograd takes for constants
    gradient = torch.autograd.grad((posterior * log_p).sum(), list(net.parameters()))
    return log_marginal.detach(), torch.cat([g.flatten() for g in gradient])


# %% [markdown]
# There is a trap in such a check. Differentiate the *same* grid's $\log p$, and both sides agree to rounding, however coarse the grid:
# a grid is a model with finitely many $z$, for which {eq}`eq-mle-identity` is exact as well. So the left side below uses other points: an
# adaptive rule of SciPy for $d = 1$, the library's `quadrature` with another grid for $d = 2$, both with no gradient at all but differences in $\theta$.

# %%
def bent(d):
    """A small generator with large weights, and one example that it generated."""
    net = Generator(3, d, 5, 12, generator=rng()).double()
    for p in net.parameters():
        p.data = 0.7 * torch.randn(p.shape, generator=rng(p.numel()), dtype=torch.float64)
    c = torch.rand(1, 3, generator=rng(5), dtype=torch.float64)
    return net, net.sample(c, 1, sigma=sigma, generator=rng(6))[0], c


def by_scipy(net, x, c):
    """log p(x|c) for d = 1."""
    @torch.no_grad()
    def p(z):
        z = torch.tensor([[z]], dtype=torch.float64)
        return (log_likelihood(x, net(c, z), sigma) + log_prior(z)).exp().item()

    return math.log(quad(p, -7, 7, points=np.linspace(-6, 6, 25), limit=400, epsrel=1e-7)[0])


def by_library(net, x, c):
    """log p(x|c) for d = 2."""
    return quadrature(Joint(net, x, c, sigma, rows=2**18), limit=7.5, points=801).item()


def difference(value, net, v, h=1e-3):
    """Slope of value(net) along the direction v in θ, by a central difference."""
    ends, start = [], torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        torch.nn.utils.vector_to_parameters(start + sign * h * v, moved.parameters())
        ends.append(value(moved))
    return (ends[0] - ends[1]) / (2 * h)


# %% [markdown]
# Three random directions $v$ in $\theta$; the difference of the two slopes, in per cent of the gradient's length:

# %%
rows = []
cases = (1, by_scipy, (101, 401, 1601, 6401)), (2, by_library, (101, 201, 401, 801))
for d, marginal, sizes in cases:
    net, x1, c1 = bent(d)
    count = sum(p.numel() for p in net.parameters())
    vs = torch.randn(3, count, generator=rng(7), dtype=torch.float64)
    slopes = [difference(lambda net, f=marginal, at=(x1, c1): f(net, *at), net, v) for v in vs]
    for points in sizes:
        log_p, gradient = on_grid(net, x1, c1, points)
        off = (vs @ gradient - torch.tensor(slopes)).abs().max() / gradient.norm()
        rows.append([d, points, 14 / (points - 1), log_p.item(), 100 * off.item()])
columns = ["d", "points an axis", "spacing", "log p(x | c)", "difference (%)"]
quadratures = pd.DataFrame(rows, columns=columns)
formats = {"spacing": "{:.4f}", "log p(x | c)": "{:.4f}", "difference (%)": "{:.2f}"}
plots.table(quadratures, formats=formats, index=False)

# %%
# NBVAL_CHECK_OUTPUT
for d, part in quadratures.groupby("d"):
    off = part["difference (%)"]
    falls = off.iloc[-1] < off.iloc[0] / 2
    print(f"d = {d}: below 3 %: {off.iloc[-1] < 3}, below half the coarsest: {falls}")


# %% [markdown]
# The two sides approach each other as the grid gets finer, and $\log p$ itself much faster. The reason is the ReLU: along
# $z$, $\nabla_\theta\log p$ jumps at each kink, and a sum over a grid is off by its spacing there. Nothing is left of the difference
# that would not vanish with the spacing.

# %% [markdown]
# ## Check 3: by Markov chains, on the trained network
#
# With $d = 10$ no grid is possible. Train a generator on real features: at the paper's $\sigma$, and at a third of it, where the
# posterior is far from the prior ([why](02_conditional_generator)). The check uses the second, the harder one, in double precision.

# %%
def train(s, step):
    config = replace(paper, sigma=s, step_size=step)
    model = ABP(config, seed=seed, device=device).fit(data, progress=False)
    return copy.deepcopy(model.net).cpu().double()


nets = {s: train(s, step_size * s / sigma) for s in (sigma, sigma / 3)}
s3 = sigma / 3
X = data.features[data.trainval].double()
C = data.semantics[data.labels[data.trainval]].double()
order = torch.randperm(len(X), generator=rng())


# %% [markdown]
# **Right side: long chains.** Langevin dynamics, in coordinates in which the posterior is about round: $z = m + R\,\xi$, with $m$ a
# mode of the posterior and $RR^\top$ the Gauss–Newton covariance there, both from the library's `laplace`. Its `mala` also corrects
# the error of the finite step, so that the chains have the posterior as their exact limit; [Inference by Langevin dynamics](04_langevin_inference) shows how.

# %%
def long_chains(net, x, c, s, chains, steps, thin=10):
    """Posterior samples [chains, T, n, d] of n examples, after a burn-in of a fifth."""
    m, cov = laplace(Joint(net, x, c, s))
    R = torch.linalg.cholesky(cov).repeat(chains, 1, 1)
    from_c = net.condition(c).detach().repeat(chains, 1)
    many_x, many_m = x.repeat(chains, 1), m.repeat(chains, 1)

    def to_z(xi):
        return many_m + torch.einsum("nde,ne->nd", R, xi)

    def log_p(xi):
        return log_joint(many_x, net.decode(from_c, to_z(xi)), to_z(xi), s)

    start = torch.randn(many_m.shape, generator=rng(20), dtype=torch.float64)
    chain = mala(log_p, start, steps=steps, step_size=0.8, generator=rng(21), keep=True)
    z = torch.stack([to_z(xi) for xi in chain.states[steps // 5 :: thin]])  # [T, chains·n, d]
    return z.unflatten(1, (chains, len(x))).transpose(0, 1), chain.acceptance.mean().item()


x, c = X[order[:3]], C[order[:3]]
z, acceptance = long_chains(nets[s3], x, c, s3, chains, chain_steps)
chain_set = az.convert_to_dataset({"z": z.flatten(2).numpy()})
worst, fewest = az.rhat(chain_set)["z"].max().item(), az.ess(chain_set)["z"].min().item()
print(f"samples: {tuple(z.shape)}, proposals accepted: {100 * acceptance:.0f} %")
print(f"largest R-hat: {worst:.3f}, smallest effective sample size: {fewest:.0f}")


# %% [markdown]
# $\theta$ has tens of thousands of entries, so compare along directions $v$: a random one in each of $A, W, b, B, a$. On the right
# side, $\langle v, \nabla_\theta\log p_\theta(x, z\mid c)\rangle$ is one number a sample, and its mean over the chains has a standard error that
# counts samples as fewer than they are, by their autocorrelation (ArviZ's `mcse`).

# %%
def directions(net):
    """A unit vector in θ for each of A, W, b, B, a, as dicts of parameter tensors."""
    K, found = net.semantic_dim, {}
    places = {"A": ("inner.weight", slice(None, K)), "W": ("inner.weight", slice(K, None))}
    places |= {"b": ("inner.bias", ...), "B": ("outer.weight", ...), "a": ("outer.bias", ...)}
    for i, (name, (key, part)) in enumerate(places.items()):
        v = {k: torch.zeros_like(p) for k, p in net.named_parameters()}
        block = v[key] if part is ... else v[key][:, part]
        block.copy_(torch.randn(block.shape, generator=rng(30 + i), dtype=torch.float64))
        found[name] = {k: p / block.norm() for k, p in v.items()}
    return found


def scores(net, v, x, c, z, s):
    """⟨v, ∇θ log p(x, z|c)⟩ at each z of [chains, T, n, d]."""
    flat = z.flatten(0, 1)
    many_x, many_c = x.repeat(len(flat), 1), c.repeat(len(flat), 1)

    def log_p(theta):
        mean = torch.func.functional_call(net, theta, (many_c, flat.flatten(0, 1)))
        return log_joint(many_x, mean, flat.flatten(0, 1), s)

    theta = {k: p.detach() for k, p in net.named_parameters()}
    return torch.func.jvp(log_p, (theta,), (v,))[1].view(z.shape[:-1])


# %% [markdown]
# **Left side: importance sampling**, without the identity. For samples $\xi_k$ of a fixed law with density $\kappa$ (Student's $t$ with 20 degrees
# of freedom, close to a normal), and with $z_k = m + R\,\xi_k$ of density $\kappa(\xi_k)/\det R$,
#
# $$
# p_\theta(x\mid c) = \mathbb E\,w, \qquad w(\xi) = \frac{p_\theta\bigl(x, m + R\,\xi \mid c\bigr)\det R}{\kappa(\xi)},
# \qquad \log p_\theta(x\mid c)\approx\log\frac1m\sum_k w(\xi_k).
# $$ (eq-mle-importance)
#
# Evaluate it at $\theta + hv$ and $\theta - hv$, with the same $\xi_k$ (*common random numbers*) and with a new mode and covariance for each, and
# take the slope. The trap of the last section waits here too: if the $z_k$ stayed fixed, the slope would be the identity for those
# points. As the mode moves, so do they. Batches of $\xi$ from different seeds give its standard error.

# %%
def slope_by_importance(net, v, x, c, s, h=0.02, batches=12, samples=1500):
    """Slope of log p(x|c) along v and its standard error, [n] each."""
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        for k, p in moved.named_parameters():
            p.data += sign * h * v[k]
        joint = Joint(moved, x, c, s)
        around = laplace(joint)
        draws = [
            importance(joint, *around, samples=samples, generator=rng(40 + i)).log_prob
            for i in range(batches)
        ]
        ends.append(torch.stack(draws))
    slopes = (ends[0] - ends[1]) / (2 * h)
    return slopes.mean(0), slopes.std(0) / batches**0.5


# %%
rows = []
for name, v in directions(nets[s3]).items():
    f = scores(nets[s3], v, x, c, z, s3).detach()
    right, error = f.mean((0, 1)), [float(az.mcse(f[:, :, i].numpy())) for i in range(len(x))]
    left, left_error = slope_by_importance(nets[s3], v, x, c, s3)
    for i in range(len(x)):
        pair = left[i].item(), left_error[i].item(), right[i].item(), error[i]
        rows.append([name, i, *pair, (pair[2] - pair[0]) / math.hypot(pair[1], pair[3])])
columns = ["direction in", "example", "left", "error left", "right", "error right", "z-score"]
check = pd.DataFrame(rows, columns=columns)
wide = pd.DataFrame({"direction in": check["direction in"], "example": check["example"] + 1})
for side in ("left", "right"):
    pairs = zip(check[side], check[f"error {side}"], strict=True)
    wide[f"{side} side"] = [f"{a:.3f} ± {b:.3f}" for a, b in pairs]
wide["z-score"] = check["z-score"].round(1) + 0.0
plots.table(wide, index=False)

# %%
# NBVAL_CHECK_OUTPUT
print("all z-scores below 4.5:            ", bool((check["z-score"].abs() < 4.5).all()))
print("their mean square below 3:        ", bool(check["z-score"].pow(2).mean() < 3))
signal = (check["right"] / check["error right"]).abs().max()
print("the gradient is not just noise:   ", bool(signal > 20))


# %% [markdown]
# Both sides agree within their errors, though they share neither points nor method: one moves through $z$ and never sees an integral, the
# other computes the integral at two $\theta$ and never sees a gradient. That is {eq}`eq-mle-identity` on the real network.
#
# ## What a wrong z does
#
# The identity wants $z$ from the *posterior*. What if $z$ comes from elsewhere? In the linear world {eq}`eq-mle-linear` answers, with other moments
# in place of $\mathbb E z$ and $\mathbb E zz^\top$:
#
# - $z$ from the **prior**: $\mathbb E z = 0$, $\mathbb E zz^\top = I$, so $\mathbb E\,\nabla_W\log p = -W/\sigma^2$ for every $x$. The data drop out, and $W$ shrinks to 0.
# - $z$ at the **mode**: $\mathbb E zz^\top = \mu\mu^\top$, without $\Sigma$. The pull $-W\Sigma/\sigma^2$ is missing, and $W$ grows too large.
#
# Climb the three gradients from one start, exactly, and follow the exact likelihood.

# %%
def moments_of(kind, world, x, c):
    m, zz = moments(world, x, c)
    if kind == "prior":
        return torch.zeros_like(m), torch.eye(m.shape[1], dtype=m.dtype).expand_as(zz)
    return (m, m[:, :, None] * m[:, None, :]) if kind == "mode" else (m, zz)


n = 400
toy_c = torch.rand(n, 3, generator=rng(3), dtype=torch.float64)
toy_x, _ = true.sample(toy_c, rng(4))
climbs = {}
for kind in ("posterior", "prior", "mode"):
    world, curve = LinearGaussian(0.3 * other.W, true.A, true.b, sigma), []
    for _ in range(300):
        curve.append(world.log_prob(toy_x, toy_c).mean().item())
        in_W, _, _ = expected_gradient(world, toy_x, toy_c, *moments_of(kind, world, toy_x, toy_c))
        world = replace(world, W=world.W + 0.2 * sigma**2 * in_W / n)
    climbs[kind] = curve, world.W.norm().item()

# %% mystnb={"image": {"alt": "Mean log-likelihood over 300 steps of ascent. With z from the posterior it rises to the level of the true world. With z from the prior it falls to a low level; with z at the mode it rises first and then falls behind."}}
fig, ax = plt.subplots(figsize=(6, 3.2))
for kind, (curve, norm) in climbs.items():
    ax.plot(curve, label=rf"$z$: {kind}, $\Vert W\Vert$ at the end {norm:.2f}")
level = true.log_prob(toy_x, toy_c).mean()
ax.axhline(level, color="grey", ls=":", label=rf"true $W$, norm {true.W.norm():.2f}")
ax.set(xlabel="step of gradient ascent in $W$", ylabel="mean $\\log p(x\\mid c)$, exact")
ax.legend()
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
ends = {kind: curve[-1] for kind, (curve, _) in climbs.items()}
print("posterior ends above the true W:", bool(ends["posterior"] > level))
print("prior and mode end below it:    ", bool(max(ends["prior"], ends["mode"]) < level))

# %% [markdown]
# (The posterior's climb ends a little above the true $W$: the best $W$ for 400 examples is not the one that made them.)
#
# And on real features? Take a batch of 64 images. The reference is the mean gradient over long chains. Against it, the
# cosine and the length of the gradient that other $z$ give, for all of $\theta$ and for $W$, the weights that read $z$.

# %%
x, c = X[order[:64]], C[order[:64]]


def batch_gradient(net, z, s):
    """Gradient of the mean log p(x, z|c) over z [m, 64, d]: all of θ, and the part in W."""
    many_x, many_c = x.repeat(len(z), 1), c.repeat(len(z), 1)
    value = log_joint(many_x, net(many_c, z.flatten(0, 1)), z.flatten(0, 1), s).mean()
    found = torch.autograd.grad(value, list(net.parameters()))
    return torch.cat([g.flatten() for g in found]), found[0][:, net.semantic_dim :].flatten()


def other_latents(net, z, s):
    """What to compare: name → latents [m, 64, d]; z [4, T, 64, d] are posterior samples."""
    prior = torch.randn(50, *z.shape[2:], generator=rng(50), dtype=torch.float64)
    from_c, many = net.condition(c).detach().repeat(50, 1), x.repeat(50, 1)
    short = langevin(
        lambda z: log_joint(many, net.decode(from_c, z), z, s),
        prior.flatten(0, 1),
        steps=langevin_steps,
        step_size=step_size * s / sigma,
        generator=rng(51),
    ).z.view_as(prior)
    mode = laplace(Joint(net, x, c, s))[0][None]
    return {
        "posterior, the other chains": z[2:].flatten(0, 1),
        "posterior, one draw": z[2, :1],
        "mode": mode,
        f"{langevin_steps} Langevin steps from the prior, mean of 50": short,
        "prior, mean of 50": prior,
    }


# %%
samples_of, rows = {}, []
for s, net in nets.items():
    z, _ = long_chains(net, x, c, s, 4, 400)
    samples_of[s] = z
    reference = batch_gradient(net, z[:2].flatten(0, 1), s)
    for name, latents in other_latents(net, z, s).items():
        row = {"σ": s, "z": name}
        pairs = zip(("θ", "W"), batch_gradient(net, latents, s), reference, strict=True)
        for part, found, ref in pairs:
            row[f"cosine, {part}"] = cosine_similarity(found, ref, dim=0).item()
            row[f"length, {part}"] = (found.norm() / ref.norm()).item()
        rows.append(row)
wrong = pd.DataFrame(rows)
plots.table(wrong, precision=2, formats={"σ": "{:.3g}"}, index=False)

# %%
# NBVAL_CHECK_OUTPUT
at = wrong.set_index(["σ", "z"])["cosine, θ"]
gain = {s: at[s, "posterior, the other chains"] - at[s, "prior, mean of 50"] for s in nets}
print("at σ/3, z from the prior points elsewhere: ", bool(at[s3, "prior, mean of 50"] < 0.6))
print("at σ, it points almost as the posterior's: ", bool(gain[sigma] < 0.2))


# %% [markdown]
# At the small $\sigma$, inference is everything: with $z$ from the prior the gradient points elsewhere, and in $W$ its cosine is near 0. Ten steps from a cold start repair a part.
# The mode does well in direction, and is too long in $W$, as the linear world says. At the paper's $\sigma$ the posterior is nearly the prior, and so the gradient
# hardly depends on where $z$ comes from. Only $W$ notices. (One posterior draw an example has the right mean; its noise is the next section's subject.) That is a first answer to what inference buys in ABP on these features. On wider ones, with more to say
# about $z$ at the same $\sigma$, it is another (`dataset = "CUB100"`).
# [Alternating back-propagation](05_alternating_backprop) takes the question up with accuracies.
#
# ## From Eq. 5 to one z: Eq. 7 and 8
#
# :::{admonition} Paper 1, Eq. 7 and 8
# :class: note
#
# $$
# \theta_{t+1} = \theta_t + \gamma_t\,\frac{\partial}{\partial\theta}L(\theta), \qquad
# \frac{\partial}{\partial\theta}L(\theta) \approx \sum_{i=1}^n\frac{1}{\sigma^2}\bigl(x_i - g_\theta(c_i, z_i)\bigr)\frac{\partial}{\partial\theta}g_\theta(c_i, z_i).
# $$ (eq-mle-step)
# :::
#
# The mean over the posterior has become a single $z_i$ for each example. Its gradient $G_i = \nabla_\theta\log p_\theta(x_i, z_i\mid c_i)$ has the right mean, if $z_i$ is a posterior sample, and more variance.
# How much more? A batch is random already, by its choice of examples. The law of total variance splits the variance of $G$ for
# a random example $i$ and a random $z_i$,
#
# $$
# \mathrm{tr}\,\mathrm{Var}[G] = \underbrace{\mathbb E_i\,\mathrm{tr}\,\mathrm{Var}_z[G_i]}_{\text{one } z \text{ instead of the mean}}
# + \underbrace{\mathrm{tr}\,\mathrm{Var}_i\bigl[\mathbb E_z G_i\bigr]}_{\text{a batch instead of all examples}} .
# $$ (eq-mle-noise)
#
# No gradient needs storing for it. By the [formulas of one example](02_conditional_generator), $G$ consists of outer products, like $\delta\,\phi(h)^\top$, and
# the inner product of two is a product of inner products: $\langle\delta\phi^\top, \delta'\phi'^\top\rangle = (\delta^\top\delta')(\phi^\top\phi')$.

# %%
def inner_products(net, z, s):
    """⟨G_k, G_l⟩ of each example's gradients at its latents z [m, 64, d]: [64, m, m]."""
    A, W = net.inner.weight.split([net.semantic_dim, net.latent_dim], 1)
    h = c @ A.T + z @ W.T + net.inner.bias
    phi = leaky_relu(h, 0.2)
    m = net.outer(phi)
    delta = (x - m.clamp(min=0)) / s**2 * (m > 0)
    eta = (delta @ net.outer.weight) * torch.ones_like(h).where(h > 0, 0.2)
    dot = lambda a: torch.einsum("knp,lnp->nkl", a, a)  # noqa: E731
    from_c = c.square().sum(1)[:, None, None]
    return (dot(delta) * (dot(phi) + 1) + dot(eta) * (from_c + dot(z) + 1)).detach()


rows = []
for s, net in nets.items():
    z = samples_of[s][:, ::10].flatten(0, 1)  # far apart in the chains
    G, m = inner_products(net, z, s), len(z)
    squares = G.diagonal(dim1=1, dim2=2).mean()  # E ‖G‖²
    of_means = (G.sum((1, 2)) - G.diagonal(dim1=1, dim2=2).sum(1)).mean() / (m * (m - 1))
    total, _ = batch_gradient(net, samples_of[s].flatten(0, 1), s)
    n = len(x)
    of_batch = (of_means - total.square().sum()) * n / (n - 1)
    rows.append([s, (squares - of_means).item(), of_batch.item()])
noise = pd.DataFrame(rows, columns=["σ", "from one z", "from the examples"])
noise["share of z (%)"] = 100 * noise["from one z"] / noise.iloc[:, 1:3].sum(axis=1)
plots.table(noise, precision=0, formats={"σ": "{:.3g}"}, index=False)

# %% [markdown]
# A single $z$ adds a variance of the order that the choice of examples has anyway. Averaging over ten $z$ an example would cost ten chains to remove
# at most that share; a larger batch or a smaller step reduces both. This is the bargain of stochastic approximation {cite}`robbins1951stochastic`: with
# independent unbiased gradients and rates with $\sum_t\gamma_t = \infty$, $\sum_t\gamma_t^2 < \infty$, the noise averages out.
#
# ABP is not quite in that theorem. Its $z_i$ goes on from the last visit's, so it is a posterior sample of an older $\theta$, moved $l$ steps; the step size leaves
# a bias; and Adam rescales each entry of the gradient. What the chains do, is the subject of [Inference by Langevin dynamics](04_langevin_inference).
#
# ## Differences
#
# From the paper:
# 1. Eq. 8 is a sum over all $n$ examples. Here, as in the paper's experiments, it is a mean over a batch.
# 2. The paper states the identity and does not check it. The chains of this chapter are longer than ABP's by two orders of magnitude, and corrected;
#    they check the identity, not the algorithm.
#
# From the released code: its $z$ receive no gradient ([errata](../book/errata.md)), so they are drawn without a look at the image. The row *prior* shows
# what such a $z$ does to the gradient, as long as $\theta$ has not adapted to the pairs $(x_i, z_i)$ that it keeps.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-mle-coarse
# ```
# Take a grid of only 5 points for $d = 1$. Show that the slope of *its* $\log p$ agrees with *its* posterior mean of gradients to rounding, although its
# $\log p$ is wrong. Why must it?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-mle-coarse
# :class: dropdown
# ```
# The grid is a model in which $z$ takes 5 values. The derivation {eq}`eq-mle-derivation` holds for it with a sum in place of the integral. A check on one grid
# therefore tests arithmetic, not the integral.

# %%
# NBVAL_CHECK_OUTPUT
net, x1, c1 = bent(1)
log_p, by_mean = on_grid(net, x1, c1, 5)
z = torch.linspace(-7, 7, 5, dtype=torch.float64)[:, None]
mean = net(c1.expand(5, -1), z)
value = (log_likelihood(x1, mean, sigma) + log_prior(z)).logsumexp(0)
direct = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))])
print("identity on 5 points, to rounding:", torch.allclose(direct, by_mean, rtol=1e-10))
print("log p is off by more than 0.1:    ", bool(abs(log_p - by_scipy(net, x1, c1)) > 0.1))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-mle-louis
# ```
# Differentiate {eq}`eq-mle-identity` once more and derive Louis's identity {cite}`louis1982finding`
#
# $$
# \nabla^2\log p_\theta(x\mid c) = \mathbb E\bigl[\nabla^2\log p_\theta(x, z\mid c)\bigr] + \mathrm{Cov}\bigl[\nabla\log p_\theta(x, z\mid c)\bigr],
# $$
#
# mean and covariance under the posterior. Check it for $b$ in the linear world. What does it say about the curvature that a missing $z$ costs?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-mle-louis
# :class: dropdown
# ```
# Write $\ell = \log p_\theta(x, z\mid c)$ and $\rho = p_\theta(z\mid x, c)$. The identity is $\int\rho\,\nabla\ell\,dz$; its derivative is
# $\int\rho\,\nabla^2\ell\,dz + \int\rho\,(\nabla\log\rho)\,\nabla\ell^\top dz$, and $\nabla\log\rho = \nabla\ell - \nabla\log p_\theta(x\mid c) = \nabla\ell - \mathbb E\nabla\ell$. So the
# second term is the covariance. For $b$: $\nabla_b\ell = (r - Wz)/\sigma^2$, whose derivative is $-I/\sigma^2$ and whose covariance is $W\Sigma W^\top/\sigma^4$. The
# covariance is positive: not knowing $z$ makes the likelihood flatter, by what the posterior leaves open.

# %%
# NBVAL_CHECK_OUTPUT
one_x, one_c = toy_x[:1], toy_c[:1]
_, cov = true.posterior(one_x, one_c)
louis = -torch.eye(8, dtype=torch.float64) / sigma**2 + true.W @ cov @ true.W.T / sigma**4
hessian = torch.autograd.functional.hessian(
    lambda b: LinearGaussian(true.W, true.A, b, sigma).log_prob(one_x, one_c).sum(), true.b
)
print("Louis's identity for b:", torch.allclose(louis, hessian))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-mle-em
# ```
# EM maximises the bound {eq}`eq-mle-bound` instead of taking a step along its gradient. Derive the M-step for $W$ in the linear world from {eq}`eq-mle-linear`, and run it from the
# start of the figure *step of gradient ascent*. Does the likelihood ever fall?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-mle-em
# :class: dropdown
# ```
# Set $\sum_i\mathbb E\nabla_W\log p = 0$: $W = \bigl(\sum_i r_i\,\mathbb E z_i^\top\bigr)\bigl(\sum_i\mathbb E z_iz_i^\top\bigr)^{-1}$, a regression of $r$ on a $z$ that is known up to
# $\Sigma$. The likelihood cannot fall: the new $W$ raises the bound, which touches the likelihood at the old one and lies below it elsewhere.

# %%
# NBVAL_CHECK_OUTPUT
world, curve = LinearGaussian(0.3 * other.W, true.A, true.b, sigma), []
for _ in range(300):
    curve.append(world.log_prob(toy_x, toy_c).mean().item())
    mean_z, mean_zz = moments(world, toy_x, toy_c)
    r = toy_x - world.mean(toy_c)
    world = replace(world, W=torch.linalg.solve(mean_zz.sum(0), mean_z.T @ r).T)
print("never falls:", bool(np.diff(curve).min() > -1e-9))
print("ends where gradient ascent does, to 0.01 nats:", abs(curve[-1] - ends["posterior"]) < 0.01)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-mle-weights
# ```
# In the linear world $x = \mu + Wz + \varepsilon$, $z\sim\mathcal N(0, I_d)$, $\varepsilon\sim\mathcal N(0, \sigma^2 I_D)$, write the gradient of
# $\log p(x)$ in $W$ as the posterior mean of the complete data's gradient,
#
# $$
# \nabla_W\log p(x) = \mathbb E\bigl[\nabla_W\log p(x, z)\bigm| x\bigr] ,\qquad \nabla_W\log p(x, z) = \frac{(x - \mu - Wz)\,z^\top}{\sigma^2} .
# $$
#
# Do not differentiate $\log p(x)$: the check does.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-mle-weights
# :class: dropdown
# ```
# The posterior is $\mathcal N(m, \Sigma)$ with $\Sigma = (I + W^\top W/\sigma^2)^{-1}$ and $m = \Sigma W^\top(x-\mu)/\sigma^2$, so
# $\mathbb E z = m$ and $\mathbb E zz^\top = \Sigma + mm^\top$. Leaving $\Sigma$ out is the gradient at the mode, which is another one.

# %% tags=["exercise"]
import torch


def gradient_of_W(W, r, sigma):
    """Gradient [D, d] of log p(x) in W, for the residual r = x - mu [D]."""
    ### BEGIN SOLUTION
    precision = torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / sigma**2
    cov = torch.linalg.inv(precision)
    m = cov @ W.T @ r / sigma**2
    return (torch.outer(r, m) - W @ (cov + torch.outer(m, m))) / sigma**2
    ### END SOLUTION


# %% tags=["check"]
from torch.distributions import MultivariateNormal

from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
W = torch.randn(5, 2, generator=g, dtype=torch.float64, requires_grad=True)
r = torch.randn(5, generator=g, dtype=torch.float64)
for sd in (0.5, 2.0):
    noise = sd**2 * torch.eye(5, dtype=torch.float64)
    log_p = MultivariateNormal(torch.zeros(5).double(), W @ W.T + noise).log_prob(r)
    (expected,) = torch.autograd.grad(log_p, W)
    compare(f"by autograd, σ = {sd}", gradient_of_W(W.detach(), r, sd), expected)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# - Maximum likelihood minimises $\mathrm{KL}(q\,\Vert\,p_\theta)$, up to the error of a sample mean.
# - The gradient of $\log p_\theta(x\mid c)$ is the posterior mean of the complete data's gradient: in closed form, on a grid, and on the trained network within
#   the errors of both sides.
# - A $z$ that is not from the posterior gives another gradient: from the prior, $W$ forgets the data; from the mode, it grows too large. How much that matters is up to $\sigma$.
# - One $z$ an example is enough for an unbiased gradient, at the price of a variance like that of the batch itself.
#
# What is missing is a way to draw $z$ from the posterior: [Inference by Langevin dynamics](04_langevin_inference).
