# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inference by Langevin dynamics
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - derive Eq. 6 of the ABP paper from a stochastic differential equation, and its bias in closed form;
# - choose a step size $s$ and a number of steps $l$ for a given curvature, and check the choice with a
#   Metropolis correction, effective sample sizes and $\hat R$;
# - say when a cold start fails and what a warm start adds up to;
# - find out what an inferred $z$ knows about its image: under the right class, under a wrong one, and about
#   the typeface.
#
# You need [The gradient of the likelihood](03_mle_gradient), which says why posterior draws are wanted.
# :::
#
# **The question.** ABP {cite}`zhu2019abp` draws the latent vector of each training example from its posterior
# $p_\theta(z\mid x, c)$ by a few steps of Langevin dynamics. Are ten steps of size 0.3, as in the paper, a draw
# from that posterior?

# %% tags=["parameters"]
dataset = "hangul"  # hangul, CUB, AWA1, AWA2, SUN, APY, FLO, CUB100, or your folder
semantics = "att"  # att (attributes) or sent (1024-d sentences; CUB, CUB100)
root = ""  # folder of the real benchmarks; empty: ZSL_DATA_DIR, else data/
seed = 0  # seed of weights, latents and chains; 0 or larger
epochs = 10  # passes over the training set; 50 in the paper; 1 or larger
latent_dim = 10  # d, the dimension of z; 10 in the paper; 1 or larger
hidden = 256  # width of the generator's hidden layer; 4096 in the paper
sigma = 0.3  # sd of the noise, features in [0, 1]; 0.3 in the paper; positive
langevin_steps = 10  # l, Langevin steps a visit; 10 in the paper; 1 or larger
step_size = 0.3  # s, size of a step in units of z; 0.3 in the paper; positive
images = 100  # held-out images, inferred under all classes; 1 or larger
device = "auto"  # of training: auto (CUDA if there is one), cpu or cuda

# %%
import copy
import itertools
import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.autograd import grad
from torch.distributions import MultivariateNormal, kl_divergence

from zsl_lib import interactive, plots
from zsl_lib.data import load, toy
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig, langevin, mala
from zsl_lib.metrics import per_class_accuracy
from zsl_lib.models import Generator, log_joint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ announces its next version
    import arviz as az

plots.style()
rng = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## From a diffusion to Eq. 6
#
# Let $z$ drift up the slope of a log-density and shake. The *overdamped Langevin diffusion* is
#
# $$
# \mathrm dz = \tfrac12\nabla\log p(z)\,\mathrm dt + \mathrm dW .
# $$ (eq-lang-sde)
#
# Which law does it settle in? If $\rho_t$ is the density of $z$ at time $t$, the Fokker–Planck equation of
# {eq}`eq-lang-sde` says
#
# $$
# \partial_t\rho = -\nabla\cdot\bigl(\tfrac12\rho\,\nabla\log p\bigr) + \tfrac12\Delta\rho
# = \tfrac12\nabla\cdot\Bigl(\rho\,\nabla\log\frac{\rho}{p}\Bigr),
# $$ (eq-lang-fp)
#
# and the right side vanishes at $\rho = p$. So $p$ is stationary. Only its gradient enters: a posterior is
# known up to a constant, and that is enough. Tested with a smooth function $f$ instead of a density, {eq}`eq-lang-fp`
# reads $\frac{\mathrm d}{\mathrm dt}\mathbb E f(z_t) = \frac12\mathbb E\bigl[\nabla\log p\cdot\nabla f + \Delta f\bigr]$, and under $p$
# this must be 0 for every $f$. By quadrature, for a density with two humps:

# %%
# NBVAL_CHECK_OUTPUT
z = torch.linspace(-9, 9, 4001, dtype=torch.float64, requires_grad=True)
log_p = torch.logaddexp(-2 * (z + 1.5).square(), -(z - 1).square() / 2)
p = log_p.detach().softmax(0)  # weights of the equidistant points
(score,) = grad(log_p.sum(), z)
for name, f in {"sin z": z.sin(), "z^2": z.square(), "tanh z": z.tanh()}.items():
    (df,) = grad(f.sum(), z, create_graph=True)
    (ddf,) = grad(df.sum(), z)
    drift, shake = (p * score * df).sum().item() / 2, (p * ddf).sum().item() / 2
    zero = abs(drift + shake) < 1e-6
    print(
        f"f = {name:7} drift {drift:7.4f}   shake {shake:7.4f}   sum is 0: {zero}"
    )


# %% [markdown]
# Drift and shake balance. A computer cannot follow {eq}`eq-lang-sde` in continuous time. Euler's scheme holds the
# drift for a time $\mathrm dt = s^2$, in which the Brownian motion moves by $s\,u$, $u\sim\mathcal N(0, I)$:
#
# :::{admonition} Paper 1, Eq. 6
# :class: note
#
# $$
# z_{\tau+1} = z_\tau + \frac{s^2}{2}\,\nabla_z\log p_\theta(x, z_\tau\mid c) + s\,u_\tau,
# \qquad u_\tau\sim\mathcal N(0, I_d).
# $$ (eq-lang-step)
# :::
#
# The gradient in $z$ of the joint density is that of the posterior, since $p_\theta(x\mid c)$ does not depend on $z$.
# Two units follow: $s$ is a length in $z$ space, and $l$ steps last the *Langevin time* $l\,s^2$. The scheme is called ULA,
# the unadjusted Langevin algorithm {cite}`roberts1996exponential`. In code it is one line in a loop:

# %%
def ula(log_prob, z, steps, s, rng):
    """Eq. 6, steps times, from z [n, d]: n chains at once."""
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (gradient,) = grad(log_prob(z).sum(), z)
        u = torch.randn(z.shape, generator=rng, dtype=z.dtype)
        z = z + s**2 / 2 * gradient + s * u
    return z.detach()


# %% [markdown]
# ## A judge: MALA
#
# A step of finite size leaves $p$. Metropolis and Hastings repair it: take the step as a *proposal* $z'$ and accept it with
# probability
#
# $$
# \alpha = \min\Bigl(1,\; \frac{p(z')\,q(z\mid z')}{p(z)\,q(z'\mid z)}\Bigr),
# \qquad q(z'\mid z) = \mathcal N\Bigl(z';\, z + \tfrac{s^2}{2}\nabla\log p(z),\, s^2 I\Bigr),
# $$ (eq-lang-mh)
#
# else stay at $z$. Now as many chains go from $z$ to $z'$ as back, so $p$ is stationary exactly, whatever $s$ is. This is
# MALA {cite}`roberts1996exponential`; {cite}`neal2011mcmc` shows both as the shortest case of Hamiltonian Monte Carlo.

# %%
def mala_step(log_prob, z, s, rng):
    """One proposal of Eq. 6, accepted or not."""

    def center(z):  # mean of the proposal from z
        z = z.detach().requires_grad_()
        return z.detach() + s**2 / 2 * grad(log_prob(z).sum(), z)[0]

    new = center(z) + s * torch.randn(z.shape, generator=rng, dtype=z.dtype)
    log_q_there = -(new - center(z)).square().sum(1) / (2 * s**2)
    log_q_back = -(z - center(new)).square().sum(1) / (2 * s**2)
    alpha = (
        (log_prob(new) + log_q_back - log_prob(z) - log_q_there).exp().clamp(max=1)
    )
    accepted = torch.rand(len(z), generator=rng, dtype=z.dtype) < alpha
    return torch.where(accepted[:, None], new, z)


# %% [markdown]
# ## A posterior that is known
#
# For a linear generator, $x = Wz + b + \varepsilon$, the posterior is Gaussian with precision (inverse covariance)
#
# $$
# \Lambda = I + W^\top W/\sigma^2 .
# $$ (eq-lang-precision)
#
# The eigenvalues $\lambda\ge 1$ of $\Lambda$ are what matters to a chain: $\lambda = 1$ is a direction about which the data say nothing.
# We build a world with $\lambda$ = 1.5, 4 and 16 along the three axes of $z$, draw an $x$ from it, and check the library's
# `langevin` and `mala` against the two functions above: same seed, same states.

# %%
# NBVAL_CHECK_OUTPUT
double = torch.float64
lam = torch.tensor([1.5, 4.0, 16.0], dtype=double)
frame = torch.linalg.qr(torch.randn(5, 3, generator=rng, dtype=double)).Q
world = toy.LinearGaussian(
    W=sigma * frame * (lam - 1).sqrt(),
    A=torch.zeros(5, 1, dtype=double),
    b=torch.zeros(5, dtype=double),
    sigma=sigma,
)
c = torch.zeros(1, 1, dtype=double)
x = (
    world.mean(c)
    + 1.2 * world.W.sum(1)
    + sigma * torch.randn(1, 5, generator=rng, dtype=double)
)
mean, cov = world.posterior(x, c)
eigenvalues = torch.linalg.eigvalsh(cov.inverse())
print("eigenvalues of the precision:", eigenvalues.numpy().round(6).tolist())


def log_post(z):
    """log p(x, z | c) of the one x, for any number of latents."""
    return world.log_joint(x, z, c)


def one():
    """The same random stream each time."""
    return torch.Generator().manual_seed(1)


start = torch.randn(100, 3, generator=rng, dtype=double)
by_hand = ula(log_post, start, 20, 0.3, one())
run = langevin(log_post, start, steps=20, step_size=0.3, generator=one())
print("langevin agrees:", torch.allclose(by_hand, run.z))
by_hand, again = start, one()
for _ in range(20):
    by_hand = mala_step(log_post, by_hand, 0.3, again)
run = mala(log_post, start, steps=20, step_size=0.3, generator=one())
print("mala agrees:    ", torch.allclose(by_hand, run.z))

# %% [markdown]
# ## The bias of a finite step
#
# Along an axis with eigenvalue $\lambda$ and posterior mean $m$, {eq}`eq-lang-step` is a linear recursion:
#
# $$
# z_{\tau+1} - m = a\,(z_\tau - m) + s\,u_\tau, \qquad a = 1 - \tfrac12 s^2\lambda .
# $$ (eq-lang-recursion)
#
# If $\lvert a\rvert < 1$, that is $s^2\lambda < 4$, the mean converges to $m$ and the variance to the solution of $v = a^2 v + s^2$:
#
# $$
# v = \frac{s^2}{1 - a^2} = \frac{1/\lambda}{1 - s^2\lambda/4} .
# $$ (eq-lang-bias)
#
# So Eq. 6 finds the right mean and too large a variance, by a factor that depends on $s^2\lambda$ alone; at $s^2\lambda = 4$ it blows up. **Do
# long chains agree?** Start 4,000 chains *in* the exact posterior and run 100 steps: what differs at the end is bias.

# %%
n, limit = 4000, 2 / math.sqrt(16)
sizes = [0.1, 0.2, 0.3, 0.4, 0.47]
error = math.sqrt(2 / n)  # standard error of a variance, in units of the variance
exact = mean + torch.randn(n, 3, generator=rng, dtype=double) / lam.sqrt()
rows = []
for s in sizes:
    free = langevin(log_post, exact, steps=100, step_size=s, generator=rng)
    corrected = mala(log_post, exact, steps=100, step_size=s, generator=rng)
    theory = 1 / (1 - s**2 * lam / 4)
    rows.append([free.z.var(0) * lam, corrected.z.var(0) * lam, theory])
    rows[-1].append(corrected.acceptance.mean().expand(3))
ula_var, mala_var, theory_var, accepted = torch.stack(
    [torch.stack(r) for r in rows]
).unbind(1)

# %% mystnb={"image": {"alt": "Left: variance in units of the exact one against the step size. Points of uncorrected chains lie on the theory curve, which rises steeply towards the stability limit for the largest curvature; points of MALA stay at one. Right: MALA's acceptance rate falls from near one as the step grows."}}
fine = torch.linspace(0.02, 0.49, 200, dtype=double)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), width_ratios=[1.6, 1])
for i, color in zip((2, 1), (plots.UNSEEN, plots.SEEN), strict=True):
    left.plot(fine, 1 / (1 - fine**2 * lam[i] / 4), color=color, lw=1)
    look = {"color": color, "ms": 4}
    bars, name = error * ula_var[:, i], f"λ = {lam[i]:g}"
    left.errorbar(
        sizes, ula_var[:, i], bars, fmt="o", label=f"Eq. 6, {name}", **look
    )
    left.errorbar(
        sizes,
        mala_var[:, i],
        error,
        fmt="s",
        mfc="none",
        label=f"MALA, {name}",
        **look,
    )
left.axhline(1, color="grey", ls=":")
left.axvline(limit, color="grey", ls="--", lw=0.8)
left.set(xlabel="step size $s$", ylabel="variance / exact variance", yscale="log")
left.set_title("curves: theory; dotted: exact; dashed: limit for λ = 16")
left.legend()
right.plot(sizes, 100 * accepted[:, 0], marker="s", mfc="none", color="black")
right.set(xlabel="step size $s$", ylabel="proposals accepted (%)", ylim=(0, 102))
right.set_title("the price of MALA")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
ula_fits = ((ula_var / theory_var - 1).abs() < 4.5 * error).all().item()
mala_fits = ((mala_var - 1).abs() < 4.5 * error).all().item()
print("Eq. 6 has the variance of theory within 4.5 standard errors:", ula_fits)
print("MALA has the exact variance within 4.5 standard errors:     ", mala_fits)
excess = [round(100 * v - 100) for v in theory_var[2].tolist()]
print("excess variance of Eq. 6 at s = 0.3 (%):", excess)

# %% [markdown]
# Both agree with theory. At the paper's $s = 0.3$ the bias is a few per cent where the curvature is small, and more than half where
# $\lambda = 16$. MALA removes it, at the price of a second evaluation of $p$ and of proposals that are thrown away.
#
# ## Without noise
#
# Drop $s\,u$ and {eq}`eq-lang-step` is gradient ascent. The recursion keeps its mean and loses its spread:

# %%
options = {"steps": 200, "step_size": min(0.3, step_size), "generator": rng}
prior = torch.randn(n, 3, generator=rng, dtype=double)
climbed = langevin(log_post, prior, **options, noise=False).z
sampled = langevin(log_post, prior, **options).z
spread = {
    "posterior": 1 / lam.sqrt(),
    "with noise": sampled.std(0),
    "without noise": climbed.std(0),
}
table = pd.DataFrame(
    {k: v.tolist() for k, v in spread.items()}, index=[f"λ = {v:g}" for v in lam]
)
plots.table(table.rename_axis("standard deviation of z"), precision=3)

# %% [markdown]
# Without noise every chain ends in the mode: one code for an image, not a distribution of codes. A generator that learns from modes
# alone is told that its latents are certain. The noise is what makes Eq. 6 a sampler.
#
# ## Cold start, warm start
#
# By {eq}`eq-lang-recursion`, a distance from the posterior mean shrinks by $a = 1 - s^2\lambda/2$ a step: by about $e^{-\lambda t/2}$
# after the Langevin time $t = l s^2$. The paper's $l = 10$, $s = 0.3$ is $t = 0.9$. For the flattest possible direction, $\lambda = 1$:

# %%
# NBVAL_CHECK_OUTPUT
for s in (0.3, 0.1, 0.05):
    left_over = {value: (1 - s**2 * value / 2) ** 10 for value in (1, 2, 4, 16)}
    text = ", ".join(f"λ = {k}: {v:.2f}" for k, v in left_over.items())
    print(f"s = {s:<5} t = {10 * s**2:.3f}   distance left after 10 steps: {text}")


# %% [markdown]
# So ten steps of 0.3 leave 63 % of a distance at $\lambda = 1$. Two things soften this. First, a chain that starts *cold*, from the
# prior, has no way to go where $\lambda = 1$: there the posterior *is* the prior. It has the longest way to go where $\lambda$ is
# large, and that goes fast. What is late is the middle, around $\lambda = 1 + 1/t$ (an exercise below). Second, the paper starts *warm*:
# from where the last visit ended, while $\theta$ has moved a little.
#
# **How far is a chain from the posterior after $l$ steps?** Fit a Gaussian to 4,000 chains and take
# $\mathrm{KL}(\text{chains}\,\Vert\,\text{posterior})$ in closed form; {eq}`eq-lang-recursion` gives the curve.

# %%
def distance(z, world):
    """KL in nats: Gaussian fitted to chains z [n, d], from the exact posterior."""
    mean, cov = world.posterior(x, c)
    fitted = MultivariateNormal(z.mean(0), z.T.cov())
    return kl_divergence(fitted, MultivariateNormal(mean[0], cov)).item()


def predicted(steps, s):
    """The same by the recursion, from z ~ N(0, I)."""
    a = 1 - s**2 * lam / 2
    end = s**2 / (1 - a**2)
    gap, var = a**steps * mean[0], end + a ** (2 * steps) * (1 - end)
    return ((lam * (var + gap**2) - 1 - (lam * var).log()) / 2).sum().item()


def cold_curve(s):
    z, found = prior, {0: distance(prior, world)}
    for before, after in itertools.pairwise(marks):
        z = langevin(
            log_post, z, steps=after - before, step_size=s, generator=rng
        ).z
        found[after] = distance(z, world)
    return found


marks = [0, 1, 2, 5, 10, 20, 50, 100, 200]
curves = {s: cold_curve(s) for s in (step_size, step_size / 3)}

# %% [markdown]
# Now training in miniature. At each visit $\theta$ takes a small random step, then $l$ Langevin steps follow at the new $\theta$: from the
# last states (warm) or from new draws of the prior (cold).

# %%
s, moving, warm = step_size / 3, world, prior
visits = {"cold": [], "warm": []}
for _ in range(40):
    step = 0.02 * sigma * torch.randn(world.W.shape, generator=rng, dtype=double)
    moving = toy.LinearGaussian(moving.W + step, world.A, world.b, sigma)
    options = {"steps": langevin_steps, "step_size": s, "generator": rng}
    warm = langevin(lambda z, at=moving: at.log_joint(x, z, c), warm, **options).z
    cold = torch.randn(n, 3, generator=rng, dtype=double)
    cold = langevin(lambda z, at=moving: at.log_joint(x, z, c), cold, **options).z
    visits["cold"].append(distance(cold, moving))
    visits["warm"].append(distance(warm, moving))

# %% mystnb={"image": {"alt": "Left, logarithmic axes: distance from the posterior against Langevin steps from a cold start. The large step falls sooner and stops at a higher floor than the small step. Right: distance after each visit while the parameters move; the cold start stays high, the warm start falls and stays low."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3), sharey=True)
for (s, curve), color in zip(
    curves.items(), (plots.UNSEEN, plots.SEEN), strict=True
):
    left.plot(range(201), [predicted(k, s) for k in range(201)], color=color, lw=1)
    left.plot(
        curve.keys(), curve.values(), "o", ms=4, color=color, label=f"$s$ = {s:g}"
    )
left.axvline(langevin_steps, color="grey", ls=":")
left.set(
    xlabel="Langevin steps from a cold start",
    ylabel="KL from the posterior (nats)",
    yscale="log",
)
left.set_xscale("symlog", linthresh=1)
left.set_xticks([0, 1, 10, 100], labels=["0", "1", "10", "100"])
left.set(xlim=(0, 220), title="θ fixed (curves: theory; dotted: $l$)")
left.legend()
for (name, values), color in zip(visits.items(), ("grey", plots.SEEN), strict=True):
    right.plot(
        range(1, 41),
        values,
        marker="o",
        ms=3,
        lw=1,
        color=color,
        label=f"{name} start",
    )
right.set(
    xlabel=f"visit, {langevin_steps} steps each",
    title=f"θ moves at each visit, $s$ = {step_size / 3:g}",
)
right.legend()
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
late = np.mean(visits["warm"][-10:]), np.mean(visits["cold"][-10:])
print(
    "after 40 visits warm is ten times closer than cold:",
    bool(late[0] < late[1] / 10),
)

# %% [markdown]
# The large step is quick and stops at its bias; the small step is nearly unbiased and, started cold, nowhere near the posterior after
# ten steps. The warm start resolves it: visits add up as long as $\theta$ moves slowly, and the chains then track the moving
# posterior. What counts is the time over *all* visits, $t = l s^2\times$ visits, against $1/\lambda$. In ABP a visit is an epoch. The
# paper's 50 epochs have $t = 45$ at $s = 0.3$, $5$ at $s = 0.1$ and $1.25$ at $s = 0.05$: with the last, directions of small curvature
# still remember their first draw.
#
# ## A trained generator
#
# Now the real one. Train on the tuning split, so that nothing of the test sets is used, with the paper's $\sigma$ and with
# two smaller ones. The step shrinks with $\sigma$, since the posterior does.

# %%
data = load(dataset, root or None, semantics=semantics)
tuning = data.tuning_split().scaled()
if min(latent_dim, images) < 1:
    found = f"latent_dim {latent_dim}, images {images}"
    raise DataError("parameters", found=found, expected="1 or larger")
models = []
for shrink in (1, 3, 6):
    config = ABPConfig(
        latent_dim, hidden, sigma / shrink, langevin_steps, step_size / shrink
    )
    models.append(
        ABP(config, seed=seed, device=device).fit(
            tuning, epochs=epochs, progress=False
        )
    )
    models[-1].net.cpu().requires_grad_(False)


def posterior(model, index, classes=None):
    """log p(x, z | c) of the images at index, under their own classes or others."""
    x = tuning.features[index]
    c = tuning.semantics[tuning.labels[index] if classes is None else classes]
    from_c = model.net.condition(c)  # constant while z moves
    return lambda z: log_joint(
        x, model.net.decode(from_c, z), z, model.config.sigma
    )


def from_prior(n):
    return torch.randn(n, latent_dim, generator=rng)


# %% [markdown]
# **What does $s = 0.3$ mean at its curvature?** The generator is piecewise linear in $z$ (LeakyReLU, ReLU). Away from the kinks its second
# derivative is 0, so the negative Hessian of the log-posterior is exactly {eq}`eq-lang-precision` with the Jacobian $J = \partial g/\partial z$
# in the place of $W$:
#
# $$
# \Lambda(z) = I + J^\top J/\sigma^2, \qquad \lambda_{\max} = 1 + \lVert J\rVert^2/\sigma^2 .
# $$ (eq-lang-curvature)

# %%
held_out = tuning.test_seen  # images of training classes that training did not see
order = torch.randperm(len(held_out), generator=rng)
shown = held_out[order[:images]]


def curvature(model, index):
    """Eigenvalues [n, d] of the curvature at posterior draws, ascending."""
    options = {"steps": 100, "step_size": model.config.step_size, "generator": rng}
    z = langevin(posterior(model, index), from_prior(len(index)), **options).z
    c = tuning.semantics[tuning.labels[index]]
    one_image = torch.func.jacrev(lambda z, c: model.net(c[None], z[None])[0])
    jacobian = torch.func.vmap(one_image)(z, c)  # [n, D, d]
    gram = jacobian.transpose(1, 2) @ jacobian
    return torch.linalg.eigvalsh(
        torch.eye(latent_dim) + gram / model.config.sigma**2
    )


eigen = [curvature(model, shown) for model in models]
rows = [
    {
        "σ": m.config.sigma,
        "s": m.config.step_size,
        "smallest λ": e[:, 0].mean().item(),
        "largest λ": e[:, -1].mean().item(),
        "s² λ, worst image": m.config.step_size**2 * e[:, -1].max().item(),
    }
    for m, e in zip(models, eigen, strict=True)
]
plots.table(
    pd.DataFrame(rows), formats={"σ": "{:g}", "s": "{:g}"}, precision=2, index=False
)

# %%
# NBVAL_CHECK_OUTPUT
point = from_prior(1)
sharp = models[1]
hessian = torch.func.hessian(lambda z: posterior(sharp, shown[:1])(z[None])[0])(
    point[0]
)
c1 = tuning.semantics[tuning.labels[shown[:1]]]
J = torch.func.jacrev(lambda z: sharp.net(c1, z[None])[0])(point[0])
formula = torch.eye(latent_dim) + J.T @ J / sharp.config.sigma**2
print(
    "the Hessian is the formula:",
    torch.allclose(-hessian, formula, rtol=1e-3, atol=1e-2),
)
print(
    "all three models are stable (s² λ < 4):",
    all(row["s² λ, worst image"] < 4 for row in rows),
)

# %% [markdown]
# With the paper's $\sigma$ every $\lambda$ is close to 1: these 128 features, with noise of 0.3 each, say almost nothing about $z$, and the
# posterior is the prior, nearly. There $s = 0.3$ is a *small* step, its bias is about 2 %, and a cold start would do as well. With a
# smaller $\sigma$ the curvature spreads over two orders of magnitude: the largest $\lambda$ limits the step, the smallest sets the time.
#
# ## Energy traces
#
# The energy $-\log p(x, z\mid c)$ is the one number to watch. For each model: chains from the prior, the same without noise, and chains from
# where training left the latents of its own images. Each has a level to reach, that of a long MALA run.

# %%
trained_on = torch.randperm(len(tuning.trainval), generator=rng)[:images]
traces = []
for model in models:
    target = posterior(model, tuning.trainval[trained_on])
    options = {"steps": 150, "step_size": model.config.step_size, "generator": rng}
    last = model.z[trained_on.to(model.device)].cpu()
    found = {"cold": langevin(target, from_prior(len(last)), **options)}
    found["cold, no noise"] = langevin(
        target, from_prior(len(last)), **options, noise=False
    )
    found["warm"] = langevin(target, last, **options)
    found = {name: -chain.log_prob.mean(1) for name, chain in found.items()}
    level = mala(
        target,
        last,
        steps=300,
        step_size=1.5 * model.config.step_size,
        generator=rng,
    )
    traces.append((found, -level.log_prob[150:].mean().item()))

# %% mystnb={"image": {"alt": "Three panels, one for each noise level: mean energy over Langevin steps for cold chains, cold chains without noise, and warm chains, with a dotted line at the long-run level. Chains without noise end below that level, warm chains start near it, cold ones come down to it."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3))
colors = {"cold": plots.UNSEEN, "cold, no noise": "grey", "warm": plots.SEEN}
for ax, model, (found, level) in zip(axes, models, traces, strict=True):
    for name, energy in found.items():
        ax.plot(energy, label=name, color=colors[name])
    ax.axhline(level, color="black", ls=":", label="long run of MALA")
    ax.axvline(langevin_steps, color="grey", lw=0.6)
    ax.set(
        xlabel="Langevin step",
        title=f"σ = {model.config.sigma:g}, $s$ = {model.config.step_size:g}",
    )
    ax.set_ylim(level - 0.8 * latent_dim, level + 1.2 * latent_dim)
axes[0].set_ylabel(r"mean $-\log p(x, z\mid c)$")
axes[2].legend()
plt.show()


# %% [markdown]
# Two things to read off. **Noise costs $d/2$.** For a Gaussian posterior the energy of a draw exceeds that of the mode by
# $d/2$ on average, one half a direction: at the paper's $\sigma$ the gap between sampling and climbing is just that. A low energy
# is no merit of a sampler; the *right* energy is. **Warm is not always there.** At the paper's $\sigma$ nothing needs to be
# reached. At a third of it, warm chains start near their level, and cold ones need far more than $l$ steps (thin vertical line). At a sixth,
# training's own latents start above the level that they reach at fixed $\theta$: their Langevin time was short, and $\theta$ moved on.
#
# ## ESS and $\hat R$
#
# States of a chain resemble their predecessors. The *effective sample size* (ESS) says how many independent draws have the same
# standard error of the mean. By {eq}`eq-lang-recursion`, states $k$ steps apart have correlation $a^k$, so
#
# $$
# \frac{\text{ESS}}{\text{steps}} = \frac{1}{1 + 2\sum_k a^k} = \frac{1 - a}{1 + a} = \frac{s^2\lambda}{4 - s^2\lambda} .
# $$ (eq-lang-ess)
#
# $\hat R$ compares several chains from scattered starts: the spread of all states against that within a chain. It is 1 when the
# chains have forgotten where they began; 1.01 is the usual bar {cite}`vehtari2021rank`. ArviZ {cite}`kumar2019arviz` computes both. **How
# many draws is a visit worth?** For eight held-out images: four chains each from twice the prior's spread, 400 steps of which the first 100
# are dropped; median over images and coordinates for the ESS, worst for $\hat R$.

# %%
def run_chains(sampler, model, s, *, per_image=4):
    """States [chain, step, image, d] of eight images, and the run; None: diverged."""
    index = shown[:8].repeat_interleave(per_image)
    options = {"steps": 400, "step_size": s, "generator": rng, "keep": True}
    try:
        run = sampler(
            posterior(model, index), 2 * from_prior(len(index)), **options
        )
    except ArithmeticError:
        return None, None
    return run.states.unflatten(1, (-1, per_image)).permute(2, 0, 1, 3).numpy(), run


def diagnose(states):
    """Median ESS in 100 steps, and worst R-hat, after 100 steps of warm-up."""
    if states is None:
        return "diverges", "–"
    kept = az.convert_to_dataset(states[:, 100:])
    ess, rhat = az.ess(kept)["x"].median().item(), az.rhat(kept)["x"].max().item()
    return (
        f"{100 * ess / kept['x'][..., 0, 0].size:.1f}",
        f"{rhat:.2f}" if rhat < 10 else "> 10",
    )


rows, runs = [], {}
for model in models[:2]:
    for factor in (1 / 3, 1, 3):
        s = factor * model.config.step_size
        free, _ = run_chains(langevin, model, s)
        corrected, trace = run_chains(mala, model, s)
        runs[model.config.sigma, s] = free
        theory = 100 * s**2 / (4 - s**2) if s < 2 else math.nan
        row = {"σ": model.config.sigma, "s": s, "ESS at λ = 1, theory": theory}
        row |= dict(zip(("Eq. 6: ESS", "R̂"), diagnose(free), strict=True))
        row |= dict(zip(("MALA: ESS", "R̂ "), diagnose(corrected), strict=True))
        rows.append(row | {"accepted (%)": 100 * trace.acceptance.mean().item()})
ess = pd.DataFrame(rows)
plots.table(
    ess, formats={"σ": "{:g}", "s": "{:.3g}", "accepted (%)": "{:.0f}"}, index=False
)

# %% mystnb={"image": {"alt": "R-hat of the worst coordinate against the length of the warm-up, for three step sizes on two models. The larger the step, the sooner it comes down towards one; the smallest step stays far above one throughout."}}
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.1), sharey=True)
dropped = [0, 10, 20, 50, 100, 150, 200, 250, 300]
for ax, model in zip(axes, models[:2], strict=True):
    for (sigma_of, s), states in runs.items():
        if sigma_of == model.config.sigma and states is not None:
            windows = [
                az.convert_to_dataset(states[:, w : w + 100]) for w in dropped
            ]
            worst = [az.rhat(window)["x"].max().item() for window in windows]
            ax.plot(dropped, worst, marker="o", ms=3, label=f"$s$ = {s:.2g}")
    ax.axhline(1, color="grey", ls=":")
    ax.set(
        xlabel="warm-up (steps dropped)",
        yscale="log",
        title=f"σ = {model.config.sigma:g}",
    )
    ax.set_ylim(0.95, 9)
    ax.set_yticks([1, 2, 4], labels=["1", "2", "4"])
    ax.minorticks_off()
    ax.legend(loc="upper center", ncols=3)
axes[0].set_ylabel(r"worst $\hat R$ of 100 steps")
plt.show()

# %% [markdown]
# At the paper's setting 100 steps are worth about two draws, as {eq}`eq-lang-ess` says, so a visit of ten is worth a quarter of one. (Its
# column is for the flattest direction, $\lambda = 1$; others are quicker.) At
# this curvature three times the step would give tenfold the draws. (Where 300 steps are worth less than a draw, the ESS printed is too large;
# $\hat R$ says so.) At the smaller $\sigma$ the same $s = 0.3$ is the large one, and MALA's
# acceptance shows what it costs. $\hat R$ over windows of 100 steps stays above the bar wherever 100 steps are a few draws
# only, whatever the warm-up: it asks for chains that are long, not only settled.
#
# Training does not need independent draws: it averages the gradient over thousands of examples, each with a chain of its own, and over
# epochs.
#
# ## More than one mode
#
# The diagnostics above assume that chains can get everywhere. Take a network whose posterior has two equal halves: four hidden units
# with weights set by hand, so that $g(z) = (\lvert z_1\rvert,\; z_2 + 3)$.

# %%
# NBVAL_CHECK_OUTPUT
folded = Generator(1, 2, 2, hidden=4, generator=rng)
with torch.no_grad():
    folded.inner.weight.copy_(
        torch.tensor([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    )
    folded.outer.weight.copy_(
        torch.tensor([[1 / 0.8, 1 / 0.8, 0, 0], [0, 0, 1 / 1.2, -1 / 1.2]])
    )
    folded.outer.bias.copy_(torch.tensor([0.0, 3.0]))
point = torch.tensor([[-1.5, 0.5], [1.5, 0.5]])
folded_to = folded(torch.zeros(2, 1), point).detach().numpy().round(4).tolist()
print("g at (-1.5, 0.5) and (1.5, 0.5):", folded_to)


def log_folded(z):
    """log p(x, z) for x = (1.5, 3.5), with a noise of 0.3."""
    mean = folded.decode(torch.zeros(1, 4), z)
    return log_joint(torch.tensor([[1.5, 3.5]]), mean, z, 0.3)


# %% [markdown]
# Half of the posterior's mass is on either side of $z_1 = 0$. Run four chains of 1,000 steps; *crossings* counts how often one changes sides.

# %%
starts = {"both sides": [-2.0, -1.0, 1.0, 2.0], "one side": [0.5, 1.0, 1.5, 2.0]}
z = torch.tensor([[value, 0.0] for values in starts.values() for value in values])
cases = [
    (langevin, 0.1),
    (mala, 0.1),
    (langevin, 0.3),
    (mala, 0.3),
    (langevin, 0.5),
    (mala, 0.5),
]
rows, paths = [], {}
for sampler, s in cases:
    row = {"": "Eq. 6" if sampler is langevin else "MALA", "s": s}
    states = sampler(
        log_folded, z, steps=1000, step_size=s, generator=rng, keep=True
    ).states
    paths[row[""], s] = states[:, :4]
    for name, side in zip(starts, states[100:, :, 0].T.split(4), strict=True):
        row[f"{name}: crossings"] = (
            (side.sign().diff(dim=1) != 0).float().sum(1).mean().item()
        )
        row[f"{name}: mean z₁"] = side.mean().item()
        row[f"{name}: R̂"] = float(az.rhat(side.numpy()))
    row["variance of z₂ / exact"] = states[100:, :, 1].var().item() * (
        1 + 1 / 0.3**2
    )
    rows.append(row)
plots.table(pd.DataFrame(rows), formats={"s": "{:g}"}, precision=2, index=False)

# %% mystnb={"image": {"alt": "Contours of a posterior density over two latent coordinates with two equal humps left and right. Left: four chains with the small step, each shut up in the hump where it began. Right: chains with the large step visit both humps, and much of the space around them."}}
axis = torch.linspace(-3, 3, 121)
with torch.no_grad():
    density = log_folded(torch.cartesian_prod(axis, axis)).view(121, 121).T.exp()
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), sharey=True)
for ax, key in zip(axes, [("Eq. 6", 0.1), ("Eq. 6", 0.5)], strict=True):
    for chain, color in enumerate(plots.sns.color_palette("colorblind")[:4]):
        ax.plot(*paths[key][:400, chain].T, lw=0.5, color=color)
    ax.contour(axis, axis, density, levels=4, colors="black", linewidths=0.8)
    ax.set(xlabel="$z_1$", title=f"four chains of {key[0]}, $s$ = {key[1]}")
    ax.set(xlim=(-3, 3), ylim=(-1.2, 2.2), aspect="equal")
axes[0].set_ylabel("$z_2$")
plt.show()

# %% [markdown]
# With a small step chains stay where they started, corrected or not: the Metropolis correction makes $p$ stationary, not the chain quick.
# Started on both sides, $\hat R$ tells. Started on one side, the chains agree with each other, $\hat R$ is near 1, and the mean is far from
# the true 0: **$\hat R$ sees only what the starts surround.** With the largest step Eq. 6 does cross, several times a chain. It does so because it
# samples another, wider law (last column: four times the variance); MALA, which proposes the same jumps, takes none of them over the valley.
#
# **Move the step size, and step.** What happens to the chain as $s^2\lambda$ nears 4, and beyond? Here $\lambda = 1 + 1/0.3^2$ in both directions. All sizes share the
# noise $u$, and the last step is drawn as the two parts of {eq}`eq-lang-step`. A question worth asking: which part takes the chain over the valley?

# %%
fine = copy.deepcopy(folded).double()  # room for what diverges


def log_fine(z):
    """log_folded in double precision."""
    mean = fine.decode(torch.zeros(1, 4, dtype=double), z)
    return log_joint(torch.tensor([[1.5, 3.5]], dtype=double), mean, z, 0.3)


step_sizes = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8]
left_side, walks = torch.tensor([[-2.0, 0.0]], dtype=double), []
for s in step_sizes:
    options = {"steps": 100, "step_size": s, "generator": one(), "keep": True}
    walks.append(langevin(log_fine, left_side, **options))

# %%
states = torch.stack([walk.states[:, 0] for walk in walks])  # [sizes, steps, 2]
z = states.flatten(0, 1).requires_grad_()
(slopes,) = grad(log_fine(z).sum(), z)
inside = (axis >= -1.5) & (axis <= 2.5)
interactive.chain_stepper(
    step_sizes,
    states,
    slopes.view_as(states),
    torch.stack([walk.log_prob[:, 0] for walk in walks]),
    (axis, axis[inside], density[inside]),
    start=3,
    title="A Langevin chain on a posterior with two humps",
    alt="Contours of a density with two equal humps, and the states of one chain with step size 0.3, most of them in the left hump.",
)


# %% [markdown]
# **Do trained generators have such posteriors?** Climb without noise from twelve draws of the prior for each image. How many climbs end
# far (more than 1) from the best one, and how many of these are within 3 nats of it, so that they hold a share of the mass worth a visit?

# %%
def other_modes(model, index, climbs=12):
    """Per cent of climbs that end far from the best, and that also matter."""
    many = index.repeat_interleave(climbs)
    target = posterior(model, many)
    options = {"step_size": 1.4 * model.config.step_size, "noise": False}
    ends = langevin(target, from_prior(len(many)), steps=400, **options).z
    energy, ends = -target(ends).view(-1, climbs), ends.unflatten(0, (-1, climbs))
    best = energy.argmin(1)
    far = (ends - ends[torch.arange(len(index)), best][:, None]).norm(dim=2) > 1
    matters = far & (energy < energy.amin(1, keepdim=True) + 3)
    shares = [100 * share.double().mean().item() for share in (far, matters)]
    return {
        "σ": model.config.sigma,
        "far (%)": shares[0],
        "far, within 3 nats (%)": shares[1],
    }


modes = pd.DataFrame([other_modes(m, shown[:25]) for m in models[:2]])
plots.table(modes, formats={"σ": "{:g}"}, index=False)


# %% [markdown]
# Next to none at the paper's $\sigma$, and a few per cent of the climbs at a third of it. (Most climbs that differ at all differ by a small dent
# that a kink makes, which the noise steps over.) The paper says that the noise keeps chains from being trapped by local modes. Here it has less to do: it gives the spread.
#
# ## Explaining away
#
# The paper calls inference *explaining-away*: class and latent vector both explain the image, so what the class explains, $z$ need not.
# **And if the class is wrong?** Then $z$ must explain more. Take held-out images of the training classes (in typefaces that training did not
# see), infer $z$ under the right class and under one wrong class, with the same number of steps. *Before* is the energy at $z = 0$.

# %%
def infer(model, index, classes, steps=40):
    """Energy at z = 0, mean energy of the later half of a chain, and its last z."""
    target = posterior(model, index, classes)
    before = -target(torch.zeros(len(index), latent_dim))
    options = {
        "steps": steps,
        "step_size": 1.4 * model.config.step_size,
        "generator": rng,
    }
    chain = langevin(target, from_prior(len(index)), **options)
    return before, -chain.log_prob[steps // 2 :].mean(0), chain.z


right = tuning.labels[shown]
shift = torch.randint(1, len(tuning.seen), (len(shown),), generator=rng)
wrong = tuning.seen[
    (torch.searchsorted(tuning.seen, right) + shift) % len(tuning.seen)
]
rows = []
for model in models:
    row = {"σ": model.config.sigma}
    found = {
        name: infer(model, shown, y)
        for name, y in (("right", right), ("wrong", wrong))
    }
    for name, (before, after, z) in found.items():
        row |= {
            f"{name}: before": before.mean().item(),
            f"{name}: after": after.mean().item(),
        }
        row[f"{name}: ‖z‖²"] = z.square().sum(1).mean().item()
    lower = found["right"][1] < found["wrong"][1]
    row["right is lower (%)"] = 100 * lower.double().mean().item()
    rows.append(row)
plots.table(pd.DataFrame(rows), formats={"σ": "{:g}"}, index=False)

# %% [markdown]
# Where the likelihood speaks (the smaller $\sigma$), $z$ takes over part of the explanation: the energy falls several times as far under
# the wrong class as under the right one, and $\lVert z\rVert^2$, which is $d$ on average under the prior, rises far above that. At
# the paper's $\sigma$ there is little to take over: *after* exceeds *before* by the $d/2$ that a draw costs. Nowhere does $z$ make up for the
# class: after inference the right class still has the lower energy on nearly every image. Chance would be 50 %.
#
# **Is that a recogniser?** Infer $z$ under each of the validation classes, which training never saw, and choose the lowest energy. Chance is one in
# as many classes.

# %%
unseen = tuning.test_unseen
few = unseen[torch.randperm(len(unseen), generator=rng)[:images]]
every = few.repeat_interleave(len(tuning.unseen))
truth, rows = tuning.labels[few], []
for model in models:
    before, after, _ = infer(model, every, tuning.unseen.repeat(len(few)), steps=20)
    said = [tuning.unseen[e.view(len(few), -1).argmin(1)] for e in (before, after)]
    t1 = [per_class_accuracy(truth, y) for y in said]
    rows.append(
        {"σ": model.config.sigma, "T1, z = 0": t1[0], "T1, z inferred": t1[1]}
    )
rows = pd.DataFrame(rows).assign(chance=100 / len(tuning.unseen))
plots.table(rows, formats={"σ": "{:g}"}, index=False)

# %%
# NBVAL_CHECK_OUTPUT
far_above = rows.iloc[:, 1:3].to_numpy().min() > 10 * rows["chance"].iloc[0]
print("every accuracy is more than ten times chance:", bool(far_above))

# %% [markdown]
# Far above chance, and inference does not improve on $z = 0$; if anything it costs a few points, since it helps wrong classes too. (With this many images the standard error of
# an accuracy is about 5 points, so the rows do not rank.) One energy at one $z$ is not $\log p_\theta(x\mid c)$, which integrates $z$ out;
# [another chapter](06_abp_versus_vae) computes that.
#
# ## What z knows about the typeface
#
# The class does not say in which typeface a syllable is set, nor how it is turned and shifted. If $z$ is the factor of the instance, it
# should know. The data set records both. **Probe:** infer $z$ for the held-out images, average the later half of the chain, and let a linear
# classifier guess the typeface from the average, tested on *syllables* that the probe did not see (five folds). A ridge regression
# does the same for the distortions; its $R^2$ is 0 for a guess of the mean, and below for worse.
#
# Four references: draws of the prior, which know nothing; features $x$; the residual $x - g(c, 0)$, which is all that there is to know once the
# class is known; and its first ten principal components on the training images, a linear $z$.

# %%
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

facts = {k: v[held_out] for k, v in tuning.instances.items()}
targets = [
    k for k in ("rotation", "shear", "shift_x", "shift_y", "scale") if k in facts
]
folds = {"groups": tuning.labels[held_out].numpy(), "cv": GroupKFold(5)}


def typeface_accuracy(inputs, typeface):
    probe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cg"))
    return 100 * cross_val_score(probe, inputs, typeface, **folds).mean()


def probes(inputs):
    """What linear probes read off the inputs [n, k]: accuracy in per cent and R²."""
    row = (
        {"typeface (%)": typeface_accuracy(inputs, facts["font"])}
        if "font" in facts
        else {}
    )
    for name in targets:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 6)))
        row[name] = cross_val_score(
            ridge, inputs, facts[name], **folds, scoring="r2"
        ).mean()
    return row


# %%
def average_latents(model, steps=160):
    options = {
        "steps": steps,
        "step_size": 1.4 * model.config.step_size,
        "generator": rng,
        "keep": True,
    }
    chain = langevin(
        posterior(model, held_out), from_prior(len(held_out)), **options
    )
    return chain.states[steps // 2 :].mean(0)


def residual(model, index, z=None):
    z = torch.zeros(len(index), latent_dim) if z is None else z
    return tuning.features[index] - model.net(
        tuning.semantics[tuning.labels[index]], z
    )


inferred = [average_latents(model) for model in models]
sharp = models[1]
whole = residual(sharp, held_out)
pca = PCA(latent_dim, random_state=seed).fit(residual(sharp, tuning.trainval))
found = {
    "draws of the prior": from_prior(len(held_out)),
    **{
        f"z, σ = {m.config.sigma:g}": z
        for m, z in zip(models, inferred, strict=True)
    },
    f"{latent_dim} components of the residual": pca.transform(whole),
    "residual": whole,
    "features": tuning.features[held_out],
}
explained = {}
for model, z in zip(models, inferred, strict=True):
    left_over = (
        residual(model, held_out, z).square().sum()
        / residual(model, held_out).square().sum()
    )
    explained[f"z, σ = {model.config.sigma:g}"] = (
        f"{100 - 100 * left_over.item():.0f}"
    )
known = pd.DataFrame({k: probes(np.asarray(v)) for k, v in found.items()}).T
known.insert(0, "explained (%)", [explained.get(k, "–") for k in known.index])
plots.table(
    known.rename_axis("the probe sees"),
    formats={"typeface (%)": "{:.1f}"},
    precision=2,
)

# %% [markdown]
# Chance is the share of the commonest typeface. Since the images of a typeface are alike in more than one way, check it: shuffle the typefaces over
# the images and probe again.

# %%
if "font" in facts:
    names, counts = np.unique(facts["font"], return_counts=True)
    shuffle = np.random.default_rng(seed)
    latents = inferred[1].numpy()
    null = [
        typeface_accuracy(latents, shuffle.permutation(facts["font"]))
        for _ in range(20)
    ]
    print(
        f"{len(names)} typefaces; chance {100 * counts.max() / counts.sum():.1f} %"
    )
    print(f"shuffled: mean {np.mean(null):.1f} %, largest of 20 {max(null):.1f} %")
    accuracy = known["typeface (%)"].iloc[2]
    print(
        f"z at σ = {sharp.config.sigma:g} beats every shuffle:",
        bool(accuracy > max(null)),
    )

# %% [markdown]
# What comes out:
# - At the paper's $\sigma$, $z$ is a draw of the prior but for a few per cent, and the probe is at chance.
# - At the smaller $\sigma$, $z$ explains half of the residual and the probe is above twice chance, beyond any shuffle. So $z$ does know
#   something of the typeface.
# - It knows a little less than ten principal components do, and about half of what the whole residual has. The directions in which these
#   features vary most within a class are not those that tell typefaces apart.
# - Of the distortions it knows nothing. The whole residual knows scale and a little of the shifts; rotation is gone from it, too. The
#   backbone learned to ignore it, and $z$ cannot infer what $x$ does not show.
#
# ## Differences
#
# From the paper:
# 1. Eq. 6 as printed, without a Metropolis correction; MALA serves as a judge here, never in training.
# 2. Noise stays on in every step of every visit. The paper adds it to Eq. 6 and says no more.
# 3. The paper calls the warm start fair and efficient enough. Here that is measured: it holds where $l s^2\times$ visits is
#    large against $1/\lambda$, and not at $s = 0.05$ after ten epochs.
# 4. The paper says that noise keeps chains out of local modes. Here the posteriors have few; noise gives the spread.
# 5. The paper reports no diagnostics (acceptance, ESS, $\hat R$, energy), and does not say how $s$ and $l$ were chosen or what they
#    mean for $\sigma$ and the scale of the features. Here $s$ shrinks with $\sigma$ in all models but the first.
# 6. Gradients come from automatic differentiation; the class's share of the hidden layer is computed once a visit. Same numbers.
#
# From the released code (evidence in the [errata](../book/errata.md)):
# 1. There, the latents receive no gradient: $z \leftarrow z + s\,u$, a random walk whose variance after $k$ steps is $1 + k s^2$.
# 2. There, the noise stops after the first third of training, and then $z$ stays where it is.
# 3. There, the factor of the (ineffective) gradient is $s$ and not $s^2/2$. What that would sample is an exercise.
# 4. There, the defaults are $s = 0.1$, $l = 5$, $\sigma = 0.1$, and a batch is visited twice in a row, learning first.
# 5. There, inference leaves gradients on $\theta$ that are not cleared before the next learning step; `langevin` computes none.
#
# What these cost in recognition is measured in [Alternating back-propagation](05_alternating_backprop).
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-lang-factor
# ```
# The released code multiplies the gradient by $s$ where Eq. 6 has $s^2/2$. Suppose that it did reach $z$:
# $z \leftarrow z + s\,\nabla\log p + s\,u$. Derive the stationary variance along a direction of curvature $\lambda$. Which law is sampled
# when $s$ is small? Check it on the linear world with `langevin` and $s = 0.1$.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-lang-factor
# :class: dropdown
# ```
# The recursion has $a = 1 - s\lambda$, so $v = s^2/(1 - a^2) = \dfrac{1}{\lambda}\cdot\dfrac{s}{2 - s\lambda}$. For small $s$ this is $s/2$ times the posterior
# variance: the law is $p^{2/s}$, a posterior cooled to the temperature $s/2$, one twentieth at $s = 0.1$. The step is
# Eq. 6 for the log-density $\frac2s\log p$:

# %%
s = 0.1
cool = langevin(
    lambda z: 2 / s * log_post(z), exact, steps=200, step_size=s, generator=rng
).z
print(
    "variance / posterior variance, found: ", (cool.var(0) * lam).numpy().round(3)
)
print(
    "variance / posterior variance, theory:", (s / (2 - s * lam)).numpy().round(3)
)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-lang-acceptance
# ```
# Which acceptance rate should MALA have? Take a standard Gaussian in $d = 10$, measure the mean squared jump of a step from exact draws for $s$ between
# 0.3 and 1.8, and read off the acceptance at the largest.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-lang-acceptance
# :class: dropdown
# ```

# %%
normal = torch.randn(20_000, 10, generator=rng)
best = []
for s in torch.arange(0.3, 1.85, 0.1).tolist():
    run = mala(
        lambda z: -z.square().sum(1) / 2,
        normal,
        steps=1,
        step_size=s,
        generator=rng,
    )
    best.append(
        (
            (run.z - normal).square().sum(1).mean().item(),
            s,
            run.acceptance.mean().item(),
        )
    )
print(
    "mean squared jump {:.1f} at s = {:.1f}, with {:.0%} accepted".format(
        *max(best)
    )
)

# %% [markdown]
# In high dimension the best rate tends to 57 % {cite}`roberts1998optimal`. The maximum is flat, so anything between a half and two thirds
# will do. Acceptance near 1 means that the step is too timid, as in our first rows above.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-lang-slowest
# Chains start from the prior. Average over $x$: along a direction of curvature $\lambda$ the posterior mean is $\mathcal N(0, 1 - 1/\lambda)$. Which $\lambda$
# is farthest from its posterior, in units of the posterior's standard deviation, after the Langevin time $t$? Give numbers for $l = 10$ and $s$ = 0.3,
# 0.1, 0.05.
# ```
#
# ```{solution} ex-lang-slowest
# :class: dropdown
# The squared distance of the starting mean, in units of the posterior variance $1/\lambda$, is $\lambda(1 - 1/\lambda) = \lambda - 1$ on average; after
# the time $t$ it is $(\lambda - 1)\,e^{-\lambda t}$ for small $s$. Its derivative vanishes at $\lambda = 1 + 1/t$. With $t = l s^2$ = 0.9, 0.1 and 0.025 the
# laggards have $\lambda$ = 2.1, 11 and 41, with squared distances of 0.16, 3.3 and 14: harmless, bad, hopeless. The smaller step leaves the
# *more informed* directions behind.
# ```
#
# ```{exercise-start}
# :label: ex-lang-step
# ```
# Write one step of Langevin dynamics for $n$ chains at once,
#
# $$
# z_{\tau+1} = z_\tau + \frac{s^2}{2}\,\nabla_z\log p(x, z_\tau) + s\,u_\tau,
# $$
#
# with the noise $u_\tau$ given. The gradient comes from automatic differentiation, and nothing is to be left on the result for a later
# backward pass. For a normal density with precision $\lambda$ the step is known: $z\mapsto(1 - s^2\lambda/2)\,z + s\,u$.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-lang-step
# :class: dropdown
# ```
# The sum over chains has each chain's own gradient in its row, since no chain enters another's log-density.

# %% tags=["exercise"]
import torch


def langevin_step(log_prob, z, s, u):
    """One step from z [n, d] with the noise u [n, d]. log_prob: z [n, d] -> [n]."""
    ### BEGIN SOLUTION
    z = z.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(z).sum(), z)
    return z.detach() + s**2 / 2 * gradient + s * u
    ### END SOLUTION


# %% tags=["check"]
from zsl_lib.exercises import compare
from zsl_lib.learn import langevin


def two_humps(z):
    return torch.logaddexp(-2 * (z + 1.5) ** 2, -((z - 1) ** 2) / 2).sum(1)


lam = torch.tensor([1.5, 4.0, 16.0], dtype=torch.float64)
z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
u = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
yours = langevin_step(lambda z: -(lam * z**2).sum(1) / 2, z, 0.3, u)
compare("a normal density", yours, (1 - 0.3**2 * lam / 2) * z + 0.3 * u)
yours = langevin_step(two_humps, z, 0.3, u)
expected = langevin(two_humps, z, steps=1, step_size=0.3, generator=torch.Generator().manual_seed(1)).z
compare("a density with two humps", yours, expected)
compare("gradients left on the result", float(yours.requires_grad), 0)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# Eq. 6 is Euler's scheme for a diffusion that settles in the posterior. Its bias depends on $s^2\lambda$ alone and its speed on $l s^2\lambda$, with
# $\lambda$ the eigenvalues of $I + J^\top J/\sigma^2$. With the paper's $\sigma$ on these features every $\lambda$ is near 1: ten steps of 0.3 have a small
# bias and are worth a quarter of a draw, but posterior and prior hardly differ. With smaller $\sigma$ inference matters, cold starts fail, and warm
# starts work as far as the time over all visits reaches. An inferred $z$ explains away part of a wrong class, not enough to hide it, and knows a
# little of the typeface.
