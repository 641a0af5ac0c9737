# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The conditional generator
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - sample features from a generator by hand, and write the density that belongs to it, with its constant;
# - derive both of its gradients, in $z$ and in $\theta$, and check them three ways;
# - say what the output's ReLU, $\sigma$ and $d$ claim about real features, and which claims are wrong.
#
# You need [The zero-shot problem](01_zero_shot_problem), the chain rule and the normal distribution.
# :::
#
# **The question.** One description $c$ belongs to many images. So a generator of features needs a second input
# for what differs between images of one class. What does such a model say about a feature $x$, before
# anything is learned? And does what it says fit real features?

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
samples = 200  # synthetic features a class, 2 or more
device = "auto"  # where to train: auto (CUDA if there is one), cpu or cuda

# %%
import copy
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.distributions import Normal
from torch.nn.functional import leaky_relu

from zsl_lib import plots
from zsl_lib.data import load
from zsl_lib.data.toy import linear_gaussian
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.models import Generator, log_joint
from zsl_lib.models.generator import log_likelihood, log_prior

plots.style()
data = load(dataset, root or None, semantics=semantics).scaled()
K, D = data.semantics.shape[1], data.features.shape[1]
paper = ABPConfig(latent_dim, hidden, sigma, langevin_steps, step_size, epochs=epochs)
if samples < 2:
    raise DataError("samples", found=samples, expected="2 or more")
data


# %% [markdown]
# ## The model
#
# :::{admonition} Paper 1, Eq. 1
# :class: note
#
# $$
# z \sim \mathcal N(0, I_d), \qquad
# x = g_\theta(c, z) + \varepsilon, \qquad \varepsilon\sim\mathcal N(0, \sigma^2 I_D).
# $$ (eq-gen-model)
# :::
#
# The mean $g_\theta$ is a network with one hidden layer {cite}`zhu2019abp`. Its input is $c$ and $z$ side by
# side, so the inner weight matrix has a part $A$ for $c$ and a part $W$ for $z$:
#
# $$
# h = A c + W z + b, \qquad m = B\,\phi(h) + a, \qquad g_\theta(c, z) = \max(m, 0),
# $$ (eq-gen-network)
#
# with $\phi(h) = \max(h, 0.2\,h)$ and $\theta = (A, W, b, B, a)$. In code, examples are rows:

# %%
def g_by_hand(c, z, A, W, b, B, a):
    """Mean features [n, D] of semantics c [n, K] and latents z [n, d]; also h and m."""
    h = c @ A.T + z @ W.T + b
    m = leaky_relu(h, 0.2) @ B.T + a
    return m.clamp(min=0), h, m


def weights(net):
    """θ = (A, W, b, B, a) of a library generator."""
    A, W = net.inner.weight.split([net.semantic_dim, net.latent_dim], dim=1)
    return A, W, net.inner.bias, net.outer.weight, net.outer.bias


# %% [markdown]
# To sample $x$ is to read {eq}`eq-gen-model` from left to right, parents before children: *ancestral* sampling.

# %%
@torch.no_grad()
def sample_by_hand(net, semantics, n, sigma, rng):
    """n features for each row of semantics [C, K], by Eq. 1: [C, n, D]."""
    c = semantics.repeat_interleave(n, dim=0)
    z = torch.randn(len(c), net.latent_dim, generator=rng)
    mean, _, _ = g_by_hand(c, z, *weights(net))
    epsilon = sigma * torch.randn(mean.shape, generator=rng)
    return (mean + epsilon).view(len(semantics), n, -1)


# %% [markdown]
# The library has the same two functions, `Generator.forward` and `Generator.sample`. Same seed, same features?

# %%
# NBVAL_CHECK_OUTPUT
def rng(offset=0):
    return torch.Generator().manual_seed(seed + offset)


fresh = Generator(K, latent_dim, D, hidden, generator=rng())
ours = sample_by_hand(fresh, data.semantics[:3], 50, 0.3, rng(1))
library = fresh.sample(data.semantics[:3], 50, sigma=0.3, generator=rng(1))
print("by hand = Generator.sample:", torch.allclose(ours, library, atol=1e-5))

# %% [markdown]
# The two moments of a class follow from {eq}`eq-gen-model`, since $z$ and $\varepsilon$ are independent:
#
# $$
# \mathbb E[x\mid c] = \mathbb E_z\,g_\theta(c, z), \qquad
# \mathrm{Cov}[x\mid c] = \mathrm{Cov}_z\,g_\theta(c, z) + \sigma^2 I_D.
# $$ (eq-gen-moments)
#
# With a *linear* generator, $g(c, z) = A c + W z + b$, both are known: $A c + b$ and $W W^\top + \sigma^2 I_D$.
# Do ancestral samples have them? A deviation of an entry is counted in standard errors.

# %%
# NBVAL_CHECK_OUTPUT
world = linear_gaussian(6, latent_dim, 3, generator=rng(), dtype=torch.float64)
c1, n = torch.rand(1, 3, generator=rng(1), dtype=torch.float64), 100_000
x, _ = world.sample(c1.expand(n, -1), rng(2))
cov = world.covariance()
se_mean = (cov.diagonal() / n).sqrt()
se_cov = ((cov.diagonal().outer(cov.diagonal()) + cov**2) / n).sqrt()  # Gaussian: Wishart's
mean_off = ((x.mean(0) - world.mean(c1)[0]) / se_mean).abs().max()
cov_off = ((torch.cov(x.T) - cov) / se_cov).abs().max()
print("every mean within 4.5 standard errors:       ", bool(mean_off < 4.5))
print("every covariance within 4.5 standard errors: ", bool(cov_off < 4.5))


# %% [markdown]
# ## The complete-data log-likelihood
#
# :::{admonition} Paper 1, Eq. 2
# :class: note
#
# $$
# \log p_\theta(x, z\mid c) = \log\bigl[p_\theta(x\mid z, c)\,p(z)\bigr]
# = -\frac{1}{2\sigma^2}\lVert x - g_\theta(c, z)\rVert^2 - \frac12\lVert z\rVert^2 + \text{const}.
# $$ (eq-gen-joint)
# :::
#
# *Complete data* means that $x$ comes together with its $z$. Both factors are normal densities, so the
# constant is that of a normal density in $D$ dimensions and of one in $d$:
#
# $$
# \text{const} = -\frac D2\log(2\pi\sigma^2) - \frac d2\log(2\pi).
# $$ (eq-gen-constant)
#
# It depends on neither $x$, $z$ nor $\theta$, so neither gradient sees it. It does depend on $\sigma$ and $d$: log-likelihoods of
# models with different $\sigma$ can be compared only with it.

# %%
def log_p(x, mean, z, sigma):
    """log p(x, z | c) in nats with its constant; mean is g(c, z)."""
    constant = -x.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    constant -= z.shape[1] / 2 * math.log(2 * math.pi)
    return -(x - mean).square().sum(1) / (2 * sigma**2) - z.square().sum(1) / 2 + constant


# %% [markdown]
# Two checks: against the normal log-densities of `torch.distributions`, and by its integral. With $D = d = 1$,
# a sum over a fine grid of $x$ and $z$ must give 1. From here on, a small network in double precision serves.

# %%
# NBVAL_CHECK_OUTPUT
def small_net(K, d, D, width=16):
    """Double precision, and weights so large that both nonlinearities act."""
    net = Generator(K, d, D, width, generator=rng()).double()
    for p in net.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=rng(p.numel()), dtype=torch.float64)
    return net


net = small_net(4, 3, 6)
x, c, z = (torch.randn(5, n, generator=rng(n), dtype=torch.float64) for n in (6, 4, 3))
with torch.no_grad():
    ours = log_p(x, net(c, z), z, sigma)
    normals = Normal(net(c, z), sigma).log_prob(x).sum(1) + Normal(0, 1).log_prob(z).sum(1)
print("ours = two normal log-densities:", torch.allclose(ours, normals))

line, step = torch.linspace(-8, 8, 801, dtype=torch.float64), 0.02
tiny, half = small_net(4, 1, 1), 10 * sigma
with torch.no_grad():
    mean = tiny(c[:1].expand(801, -1), line[:, None])  # [801, 1]
    grid = mean + half * line / 8  # x in ±10 σ around each mean, [801, 801]
    triple = grid, mean.expand_as(grid), line[:, None].expand_as(grid)
    total = log_p(*(t.reshape(-1, 1) for t in triple), sigma).exp().sum() * step * (half / 8 * step)
print("its integral over x and z:       ", f"{total:.6f}")

# %% [markdown]
# The library has the two factors as `log_likelihood` and `log_prior`. Its `log_joint` is their sum without
# the constant, which is all that optimisation and sampling need:

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    two_factors = log_likelihood(x, net(c, z), sigma) + log_prior(z)
    difference = ours - log_joint(x, net(c, z), z, sigma)
print("ours = log_likelihood + log_prior: ", torch.allclose(ours, two_factors))
print("ours - log_joint is one number:    ", bool(difference.std() < 1e-9))


# %% [markdown]
# ## Two gradients, by hand
#
# ABP needs the gradient of {eq}`eq-gen-joint` in $z$ for inference and in $\theta$ for learning. Apply the chain
# rule to {eq}`eq-gen-network`, from the output backwards. The residual passes the ReLU where $m > 0$,
#
# $$
# \delta = \frac{1}{\sigma^2}\,\bigl(x - g_\theta(c, z)\bigr)\circ \mathbf 1[m > 0],
# $$ (eq-gen-delta)
#
# and reaches the hidden layer through $B$, where it is multiplied by the slope of $\phi$, which is 1 or 0.2:
#
# $$
# \eta = (B^\top\delta)\circ\phi'(h).
# $$ (eq-gen-eta)
#
# Both gradients are products with these two vectors:
#
# $$
# \begin{aligned}
# \nabla_z\log p &= W^\top\eta - z, \\
# \nabla_A\log p &= \eta\,c^\top, \quad \nabla_W\log p = \eta\,z^\top, \quad \nabla_b\log p = \eta, \\
# \nabla_B\log p &= \delta\,\phi(h)^\top, \quad \nabla_a\log p = \delta.
# \end{aligned}
# $$ (eq-gen-gradients)
#
# So one backward pass serves inference and learning. The prior's $-z$ appears in the first line only.
# The mask $M$ of the paper's §4.2 marks which features were observed; it multiplies the residual, and
# {eq}`eq-gen-delta` becomes $\delta = M\circ(x - g)\circ\mathbf 1[m>0]/\sigma^2$. Nothing else changes.

# %%
def gradients(x, c, z, sigma, theta, mask=None):
    """∇_z [n, d], and the gradients in A, W, b, B, a, summed over the examples."""
    _, W, _, B, _ = theta
    g, h, m = g_by_hand(c, z, *theta)
    residual = x - g if mask is None else torch.where(mask, x - g, 0.0)
    delta = residual / sigma**2 * (m > 0)
    eta = (delta @ B) * torch.ones_like(h).where(h > 0, 0.2)
    in_theta = eta.T @ c, eta.T @ z, eta.sum(0), delta.T @ leaky_relu(h, 0.2), delta.sum(0)
    return eta @ W - z, in_theta


# %% [markdown]
# Against autograd, entry by entry, without a mask and with one that hides about a third of the features. Where
# a feature is hidden, `x` holds NaN: what is not observed must not matter.

# %%
# NBVAL_CHECK_OUTPUT
theta = [p.detach() for p in weights(net)]
observed = torch.rand(x.shape, generator=rng()) < 0.7
cases = {"everything observed": (x, None), "masked": (x.where(observed, math.nan), observed)}
for name, (x_case, mask) in cases.items():
    at = [t.clone().requires_grad_() for t in (z, *theta)]
    value = log_joint(x_case, g_by_hand(c, *at)[0], at[0], sigma, mask).sum()
    by_autograd = torch.autograd.grad(value, at)
    in_z, in_theta = gradients(x_case, c, z, sigma, theta, mask)
    pairs = zip((in_z, *in_theta), by_autograd, strict=True)
    equal = all(torch.allclose(a, b, rtol=1e-10) for a, b in pairs)
    print(f"{name:20} by hand = autograd:", equal)


# %% [markdown]
# And against finite differences, which know nothing of the chain rule: for each of $z, A, W, b, B, a$, move along a
# random direction $v$ by $\pm 10^{-6}$ and compare the slope with $\langle\nabla, v\rangle$.

# %%
# NBVAL_CHECK_OUTPUT
def slope(k, v, x, mask, h=1e-6):
    """Central difference of Σ log p along v in the k-th of (z, A, W, b, B, a)."""
    values = []
    for sign in (1, -1):
        at = [z, *theta]
        at[k] = at[k] + sign * h * v
        values.append(log_joint(x, g_by_hand(c, *at)[0], at[0], sigma, mask).sum())
    return (values[0] - values[1]) / (2 * h)


for name, (x_case, mask) in cases.items():
    in_z, in_theta = gradients(x_case, c, z, sigma, theta, mask)
    agree = []
    for k, gradient in enumerate((in_z, *in_theta)):
        v = torch.randn(gradient.shape, generator=rng(k), dtype=torch.float64)
        found, expected = slope(k, v, x_case, mask), (gradient * v).sum()
        agree.append(torch.allclose(found, expected, rtol=1e-5, atol=1e-5))
    print(f"{name:20} by hand = finite differences:", all(agree))

# %% [markdown]
# One caution: $g_\theta$ has kinks, where an entry of $h$ or $m$ is exactly 0. There is no gradient there, and autograd
# returns that of one side. The kinks have volume 0, so no random draw meets one.
#
# ## Generators to look at
#
# What do these formulas claim about real features? To see it, train the network with four settings: three $\sigma$, named by how loud the noise is, and one $d = 2$. How ABP
# trains is the matter of [Alternating back-propagation](05_alternating_backprop); here it is a tool. With $\sigma$ the Langevin
# step shrinks.

# %%
settings = {
    "loud": (latent_dim, sigma, step_size),
    "middle": (latent_dim, sigma / 3, step_size / 3),
    "quiet": (latent_dim, sigma / 6, step_size / 6),
    "sheet": (2, sigma / 3, step_size / 3),
}
X, y = data.features[data.trainval], data.labels[data.trainval]
nets, inferred = {}, {}
for name, (d, s, step) in settings.items():
    config = replace(paper, latent_dim=d, sigma=s, step_size=step)
    model = ABP(config, seed=seed, device=device).fit(data, progress=False)
    nets[name] = copy.deepcopy(model.net).cpu()
    with torch.no_grad():
        inferred[name] = nets[name](data.semantics[y], model.z.cpu())  # at each row's own z
columns = {"d": "d", "sigma": "σ", "s": "s"}
rows = pd.DataFrame(settings, index=list(columns.values())).T.rename_axis("generator")
plots.table(rows, formats={"d": "{:.0f}", "σ": "{:.3g}", "s": "{:.3g}"})

# %%
S = data.semantics[data.seen]
without = {k: net.sample(S, samples, generator=rng(1)) for k, net in nets.items()}
with_noise = {
    k: net.sample(S, samples, sigma=settings[k][1], generator=rng(2)) for k, net in nets.items()
}

# %% [markdown]
# ## What the output's ReLU means
#
# Features that come out of a ReLU and an average are never negative, so the network's last layer is a ReLU as well.
# Look at all feature values at once: real ones, noise-free ones $g_\theta(c, z)$, and ones with $\varepsilon$.

# %% mystnb={"image": {"alt": "Histograms of feature values for the loud and the middle generator. Real values start at zero and have a small peak there. Noise-free synthetic values follow them, with a higher peak at zero. Values with noise spread widely, far into the negative numbers for the loud one, less for the middle one."}}
bins = torch.linspace(-0.8, 1.4, 89).numpy()
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for ax, name in zip(axes, ("loud", "middle"), strict=True):
    ax.hist(X.flatten().numpy(), bins, density=True, histtype="stepfilled", color="lightgrey", label="real")
    for values, label in ((without, "$g(c, z)$"), (with_noise, r"$g(c, z) + \varepsilon$")):
        flat = values[name].flatten().numpy()
        ax.hist(flat, bins, density=True, histtype="step", lw=1.5, label=label)
    ax.set(xlabel="value of a feature")
    ax.set_title(rf"{name}: $\sigma$ = {settings[name][1]:.3g}")
axes[0].set(ylabel="density")
axes[0].legend()
plt.show()


# %% [markdown]
# How often is a value exactly 0, and how often negative? Given $z$, the model's chance of a negative value is
# $\Phi(-g_\theta(c,z)_j/\sigma)$, with $\Phi$ the standard normal distribution function: one half where $g = 0$. Its mean must be
# the share found in samples.

# %%
def shares(values):
    zero, negative = (values == 0).double().mean(), (values < 0).double().mean()
    return {"exactly 0 (%)": 100 * zero.item(), "negative (%)": 100 * negative.item()}


rows = {"real": shares(X)}
for name in ("loud", "middle"):
    s = settings[name][1]
    predicted = 100 * Normal(0.0, 1.0).cdf(-without[name] / s).double().mean().item()
    rows[f"{name}: g(c, z)"] = shares(without[name])
    rows[f"{name}: g(c, z) + ε"] = shares(with_noise[name]) | {"mean of Φ(−g/σ) (%)": predicted}
table = pd.DataFrame(rows).T
plots.table(table.astype(object).where(table.notna(), ""), precision=1)

# %%
# NBVAL_CHECK_OUTPUT
noisy = [f"{name}: g(c, z) + ε" for name in ("loud", "middle")]
off = (table.loc[noisy, "negative (%)"] - table.loc[noisy, "mean of Φ(−g/σ) (%)"]).abs()
print("predicted = found, within 0.3 points:         ", bool((off < 0.3).all()))
zeros = table["exactly 0 (%)"]
more = all(zeros[f"{name}: g(c, z)"] > zeros["real"] for name in ("loud", "middle"))
print("noise-free features have more zeros than real:", more)


# %% [markdown]
# Three things follow.
#
# - The ReLU lets the generator say *exactly 0*, which a smooth output could not. On hangul it says so more often than real features do:
#   where $m$ is negative, every value of $m$ gives the same $x$.
# - $\varepsilon$ takes it back. The model of {eq}`eq-gen-model` never gives an exact 0, and puts a good part of its features
#   where none can be. A normal density on non-negative data is a convenience: it makes the log-likelihood a
#   squared error.
# - So synthetic features with $\varepsilon$ look unlike real ones, although they are what the model means. The released code
#   leaves $\varepsilon$ out; §4.1 of the paper adds it.
#
# ## What σ means
#
# $\sigma$ divides the variance within a class. By the law of total variance, {eq}`eq-gen-moments` reads for feature $j$
#
# $$
# \mathrm{Var}[x_j\mid c] = \underbrace{\mathrm{Var}_z\bigl[g_\theta(c, z)_j\bigr]}_{\text{what } z \text{ explains}}
# + \underbrace{\sigma^2}_{\text{what it does not}} .
# $$ (eq-gen-variance)
#
# Measure each term by itself, from samples with different seeds: the variance within a class, averaged over
# classes and features. Beside them, the same for real features.

# %%
def within(values):
    """Variance within each class, averaged over features: [C]."""
    return values.double().var(1).mean(1)


def centred(values):
    """Rows of trainval, less the mean of their class."""
    return torch.cat([v - v.mean(0) for c in data.seen for v in [values[y == c].double()]])


real = centred(X)
real_variance = (real.square().sum(0) / (len(real) - len(S))).mean().item()
rows, deviations = [], {}
for name in ("loud", "middle", "quiet"):
    s = settings[name][1]
    from_z, found = within(without[name]), within(with_noise[name])
    difference = found - from_z - s**2
    deviations[name] = difference.mean() / difference.std() * len(S) ** 0.5
    rows.append([name, s, from_z.mean().item(), s**2, found.mean().item(), real_variance])
columns = ["generator", "σ", "explained by z", "σ²", "of samples", "of real features"]
table = pd.DataFrame(rows, columns=columns)
plots.table(table, precision=4, formats={"σ": "{:.3g}"}, index=False)

# %%
# NBVAL_CHECK_OUTPUT
print("law of total variance, deviation below 4 standard errors:")
for name, z_score in deviations.items():
    print(f"  {name}:", bool(z_score.abs() < 4))

# %% [markdown]
# The law holds, and the last two columns show what the paper's $\sigma = 0.3$ claims on these features: a variance within a
# class many times the real one. No $z$ can repair that, since $z$ only adds. To match, $\sigma^2$
# must stay *below* the real variance, which is its last column; then $z$ is left something to explain.
#
# ### Which directions z gets
#
# Why does $z$ explain so little in the loud generator? A linear generator answers. Let $\Sigma$ be the covariance of real features
# within a class, with eigenvalues $\lambda_1\ge\lambda_2\ge\dots$, and let $g(c, z) = \mu_c + W z$ with a free mean for each class. The $W$ of
# maximum likelihood lies along the $d$ leading eigenvectors, and gives direction $k$ the variance {cite}`tipping1999probabilistic`
#
# $$
# w_k = \max(\lambda_k - \sigma^2,\ 0).
# $$ (eq-gen-ppca)
#
# So $\sigma^2$ is a threshold: *a direction whose real variance is below $\sigma^2$ gets nothing of $z$*. Check it, by maximising the exact
# likelihood of $W$ numerically from a random start. Up to constants it is
# $-\tfrac12\bigl(\log\det C + \mathrm{tr}(C^{-1}\Sigma)\bigr)$ with $C = WW^\top + \sigma^2 I_D$, and needs only the $d\times d$ matrix
# $G = \sigma^2 I_d + W^\top W$.

# %%
cov = real.T @ real / len(real)
eigenvalues = torch.linalg.eigvalsh(cov).flip(0)


def fit_linear(s, d=latent_dim):
    """W [D, d] of maximum likelihood at σ = s."""
    W = (0.01 * torch.randn(D, d, generator=rng(), dtype=torch.float64)).requires_grad_()
    options = {"max_iter": 500, "tolerance_grad": 1e-9, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS([W], **options)

    def loss():
        optimiser.zero_grad()
        G = s**2 * torch.eye(d, dtype=torch.float64) + W.T @ W
        value = G.logdet() - torch.linalg.solve(G, W.T @ cov @ W).trace() / s**2
        value.backward()
        return value

    optimiser.step(loss)
    return W.detach()


rows = []
for name in ("loud", "middle", "quiet"):
    s = settings[name][1]
    W = fit_linear(s)
    predicted = (eigenvalues[:latent_dim] - s**2).clamp(min=0)
    drawn = without[name] - without[name].mean(1, keepdim=True)
    of_inferred = centred(inferred[name]).square().sum(1).mean().item()
    rows.append([name, s, int((predicted > 0).sum()), predicted.sum().item()])
    rows[-1] += [W.square().sum().item(), of_inferred, drawn.square().sum(2).mean().item()]
columns = ["generator", "σ", "λ above σ²", "predicted", "linear, fitted"]
columns += ["network, z inferred", "network, z from the prior"]
linear = pd.DataFrame(rows, columns=columns)
plots.table(linear, precision=3, formats={"σ": "{:.3g}"}, index=False)

# %%
# NBVAL_CHECK_OUTPUT
off = (linear["predicted"] - linear["linear, fitted"]).abs() / eigenvalues.sum().item()
print("formula = fitted, within 0.1 % of the real variance:", bool((off < 1e-3).all()))

# %% mystnb={"image": {"alt": "Eigenvalues of the covariance within a class on a logarithmic axis, falling with their rank. The spectra of generators with smaller sigma start higher. A dotted line at sigma squared of 0.3 lies above every real eigenvalue; that of the middle generator crosses the real spectrum."}}
fig, ax = plt.subplots(figsize=(6, 3.6))
shown = min(40, D)
rank = range(1, shown + 1)
ax.semilogy(rank, eigenvalues[:shown], color="black", lw=2, label="real")
for i, name in enumerate(("loud", "middle", "quiet")):
    drawn = (without[name] - without[name].mean(1, keepdim=True)).flatten(0, 1).double()
    spectrum = torch.linalg.eigvalsh(drawn.T @ drawn / len(drawn)).flip(0)
    ax.semilogy(rank, spectrum[:shown], f"C{i}", label=f"{name}: $g(c, z)$")
    ax.axhline(settings[name][1] ** 2, color=f"C{i}", ls=":")
ax.set(xlabel="eigenvalue, by rank", ylabel="variance within a class", ylim=(1e-4, 10))
ax.set_title(r"dotted: $\sigma^2$ of the generator of that colour")
ax.legend(ncols=2)
plt.show()


# %% [markdown]
# The table sums over all $D$ features, of which real ones have the sum of all $\lambda_k$. On these features the dotted line of $\sigma = 0.3$
# lies above the whole real spectrum: a linear generator would leave $z$ unused, and the loud network uses it little. Below it, $z$ gets
# more.
#
# The formula is no exact guide to the network, which bends and depends on $c$. And the last two columns should agree: if
# the model were right, the inferred $z$ of all examples together would be spread like the prior. After so few epochs, the middle and the quiet one are
# not there yet: features drawn with $z$ from the prior spread more than the inferred $z$ explain. With more
# epochs the columns approach each other (try `epochs = 40`).
#
# So $\sigma$ is not only the noise of the data. It decides what counts as a pattern for $z$, and what as noise. And the same $\sigma$ decides
# otherwise on other features: a direction collects variance from all $D$ of them, so the $\lambda_k$ grow with $D$. On CUB100, with 1,280
# features, all ten leading $\lambda_k$ are above $0.3^2$ (`dataset = "CUB100"`).
#
# ## What d means
#
# $z$ has $d$ coordinates, so the noise-free features of one class, $\{g_\theta(c, z): z\in\mathbb R^d\}$, form a surface of dimension at most
# $d$ in $\mathbb R^D$. The proof is one line. By the chain rule,
#
# $$
# \frac{\partial g_\theta}{\partial z} = \mathrm{diag}\bigl(\mathbf 1[m > 0]\bigr)\,B\,\mathrm{diag}\bigl(\phi'(h)\bigr)\,W
# \quad\in\mathbb R^{D\times d},
# $$ (eq-gen-jacobian)
#
# and a product has at most the rank of its last factor, which has $d$ columns.

# %%
def jacobian(net, c, z):
    """∂g/∂z [D, d] at one c [K] and z [d]."""
    A, W, b, B, a = (p.detach() for p in weights(net))
    _, h, m = g_by_hand(c[None], z[None], A, W, b, B, a)
    return (m[0] > 0)[:, None] * (B * torch.ones_like(h).where(h > 0, 0.2)) @ W


# %%
# NBVAL_CHECK_OUTPUT
rng_z = rng(3)
for name in ("middle", "sheet"):
    net, d = nets[name], settings[name][0]
    draws = [(S[i % len(S)], torch.randn(d, generator=rng_z)) for i in range(50)]
    found = torch.stack([jacobian(net, *at) for at in draws])
    auto = [torch.func.jacfwd(lambda z, c=c, net=net: net(c[None], z[None])[0])(z) for c, z in draws]
    equal = torch.allclose(found, torch.stack(auto).detach(), atol=1e-5)
    at_most = bool((torch.linalg.matrix_rank(found) <= d).all())
    print(f"{name:6}  by hand = autograd: {equal}   rank at most d: {at_most}")

# %% [markdown]
# For *sheet*, with $d = 2$, the surface can be drawn: lines of constant $z_1$ and of constant $z_2$, mapped by $g$, in the
# two directions in which the surface spreads most.

# %% mystnb={"image": {"alt": "Left: a class's real features as dots, and over them a bent net of lines, the image of a square of latents. Right: the image of the same square for another class, a net of another shape."}}
ticks, fine = torch.linspace(-2, 2, 9), torch.linspace(-2, 2, 81)
across = torch.stack([torch.cartesian_prod(t[None], fine) for t in ticks])  # [9, 81, 2]
lines = torch.cat([across, across.flip(2)])  # z1 constant, then z2
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
for ax, c in zip(axes, data.seen[[0, len(data.seen) // 2]], strict=True):
    with torch.no_grad():
        z = lines.flatten(0, 1)
        sheet = nets["sheet"](data.semantics[c].expand(len(z), K), z)
    centre = sheet.mean(0)
    axis_2d = torch.linalg.svd(sheet - centre, full_matrices=False).Vh[:2].T
    ax.plot(*((X[y == c] - centre) @ axis_2d).T, ".", color="grey", ms=4, label="real")
    for i, line_2d in enumerate(((sheet - centre) @ axis_2d).view(len(lines), -1, 2)):
        colour = plots.SEEN if i < len(ticks) else plots.UNSEEN
        ax.plot(*line_2d.T, color=colour, lw=0.8)
    ax.set(xlabel="first direction", ylabel="second direction", aspect="equal")
    ax.set_title(f"seen class number {c}")
axes[0].legend()
plt.show()

# %% [markdown]
# A two-dimensional sheet, folded where an entry of $h$ or $m$ changes its sign and flat in between, since $g$ is piecewise linear
# in $z$. Another class has another sheet. The real features spread around it in all $D$ directions, of which the picture shows two; what
# is off the sheet, only $\varepsilon$ can explain.
#
# How bent is it? If the sheet of a class were flat, its variance would lie in $d$ directions. And how much of the *real*
# variance within a class could any flat $d$-dimensional sheet hold?

# %%
rows = []
for name in ("middle", "sheet"):
    d = settings[name][0]
    drawn = (without[name] - without[name].mean(1, keepdim=True)).double()
    spectra = torch.linalg.svdvals(drawn).square()  # one a class
    flat = (spectra[:, :d].sum(1) / spectra.sum(1)).mean().item()
    of_real = (eigenvalues[:d].sum() / eigenvalues.sum()).item()
    rows.append([name, d, 100 * flat, 100 * of_real])
columns = ["generator", "d", "g: in d directions (%)", "real: in d directions (%)"]
plots.table(pd.DataFrame(rows, columns=columns), index=False)

# %% [markdown]
# The sheets bend little: most of their variance is in $d$ directions of their own. And a good part of what real images of one class differ in
# is beyond $d = 10$ flat directions. That part is not lost: as the noise $\varepsilon$, it tells the likelihood
# how far from the sheet a feature of the class may lie, alike in all directions.
#
# ## Differences
#
# From the paper:
# 1. Eq. 2 leaves its constant unnamed. Here it is {eq}`eq-gen-constant`; `log_joint` leaves it out too.
# 2. The paper says nothing of the scale of features, and $\sigma$ has a meaning only with it. Here features are scaled to [0, 1], as in the
#    released code.
# 3. The hidden layer's slope of 0.2 is the released code's.
# 4. `Generator.sample` adds $\varepsilon$ only if `sigma` is given; §4.1 adds it.
#
# From the released code: sampling there is without $\varepsilon$; the network is the same.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-gen-semantics
# ```
# Derive $\nabla_c\log p_\theta(x, z\mid c)$, the direction in which a description should move to explain $x$ better. Check it
# against autograd.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gen-semantics
# :class: dropdown
# ```
# $c$ enters {eq}`eq-gen-network` like $z$, through $A$ in place of $W$, and has no prior: $\nabla_c\log p = A^\top\eta$.

# %%
# NBVAL_CHECK_OUTPUT
net = small_net(4, 3, 6)
x, c, z = (torch.randn(5, n, generator=rng(n), dtype=torch.float64) for n in (6, 4, 3))
A, _, _, B, _ = theta = [p.detach() for p in weights(net)]
mean, h, m = g_by_hand(c, z, *theta)
delta = (x - mean) / sigma**2 * (m > 0)
eta = (delta @ B) * torch.ones_like(h).where(h > 0, 0.2)
by_autograd = torch.func.grad(lambda c: log_joint(x, net(c, z), z, sigma).sum())(c)
print("by hand = autograd:", torch.allclose(eta @ A, by_autograd))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-gen-clip
# ```
# Someone adds $\varepsilon$ and then cuts negative values off: $\max(g + \varepsilon, 0)$. Show that the mean of a feature with $g = 0$
# moves from 0 to $\sigma/\sqrt{2\pi}$, and give the mean for any $g$. Check by simulation at $g = 0.1$.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gen-clip
# :class: dropdown
# ```
# With $\varphi$ and $\Phi$ the standard normal density and distribution function,
#
# $$
# \mathbb E\max(g+\varepsilon, 0) = \int_{-g/\sigma}^\infty (g + \sigma u)\,\varphi(u)\,du = g\,\Phi(g/\sigma) + \sigma\,\varphi(g/\sigma) ,
# $$
#
# as $\int_t^\infty u\,\varphi(u)\,du = \varphi(t)$. At $g=0$ this is $\sigma\varphi(0) = \sigma/\sqrt{2\pi}$. The cut adds to small features most, so it
# brings classes closer together.

# %%
# NBVAL_CHECK_OUTPUT
n, g, unit = 1_000_000, 0.1, Normal(torch.tensor(0.0).double(), 1.0)
cut = (g + sigma * torch.randn(n, generator=rng(), dtype=torch.float64)).clamp(min=0)
t = torch.tensor(g / sigma, dtype=torch.float64)
exact = g * unit.cdf(t) + sigma * unit.log_prob(t).exp()
z_score = (cut.mean() - exact) / (cut.std() / n**0.5)
print("simulated = derived, within 4 standard errors:", bool(z_score.abs() < 4))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-gen-ppca
# ```
# Derive {eq}`eq-gen-ppca`, given that the columns of the best $W$ are multiples $\sqrt{w_k}$ of distinct eigenvectors of
# $\Sigma$. Which $d$ eigenvectors are best?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gen-ppca
# :class: dropdown
# ```
# $WW^\top + \sigma^2 I$ then has the eigenvalues $w_k + \sigma^2$ in the chosen directions and $\sigma^2$ in the others, along the eigenvectors of $\Sigma$. So
# the log-likelihood is a sum over directions of
# $-\tfrac12\bigl(\log(w_k + \sigma^2) + \lambda_k/(w_k+\sigma^2)\bigr)$. Its derivative in $w_k$ vanishes at $w_k + \sigma^2 = \lambda_k$; if
# $\lambda_k < \sigma^2$, it is negative for all $w_k\ge0$, and $w_k = 0$ is best. Against $w_k = 0$, a chosen direction gains
# $\tfrac12(r - 1 - \log r)$ with $r = \lambda_k/\sigma^2 > 1$, which grows with $r$. So the $d$ leading eigenvectors are best.
# The gain of each of the ten, in nats an example, at the middle generator's $\sigma$:

# %%
r = eigenvalues[:latent_dim] / settings["middle"][1] ** 2
gain = torch.where(r > 1, (r - 1 - r.log()) / 2, 0.0)
print([f"{value:.2f}" for value in gain.tolist()])

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-gen-density
# ```
# Write $\log p_\theta(x, z\mid c)$ with its constant, in nats: $x\sim\mathcal N(g, \sigma^2 I_D)$ given $z$ and $c$, with $g = g_\theta(c, z)$ given, and
# $z\sim\mathcal N(0, I_d)$. Write out both densities yourself.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gen-density
# :class: dropdown
# ```
# Each of the $D$ features brings $-\log\sigma\sqrt{2\pi}$, each of the $d$ latents $-\log\sqrt{2\pi}$.

# %% tags=["exercise"]
import math

import torch


def log_density(x, mean, z, sigma):
    """log p(x, z | c) [n] in nats. x, mean: [n, D]; z: [n, d]."""
    ### BEGIN SOLUTION
    D, d = x.shape[1], z.shape[1]
    log_x = -(x - mean).square().sum(1) / (2 * sigma**2) - D * math.log(sigma)
    log_z = -z.square().sum(1) / 2
    return log_x + log_z - (D + d) / 2 * math.log(2 * math.pi)
    ### END SOLUTION


# %% tags=["check"]
from scipy.stats import norm

from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
x, mean = torch.rand(2, 4, 6, generator=g, dtype=torch.float64)
z = torch.randn(4, 3, generator=g, dtype=torch.float64)
for sd in (0.3, 1.7):
    expected = norm.logpdf(x, mean, sd).sum(1) + norm.logpdf(z).sum(1)
    compare(f"by SciPy, σ = {sd}", log_density(x, mean, z, sd), expected)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# - A generator samples by {eq}`eq-gen-model`, read from left to right. The density of the pair $(x, z)$ is a product of two normal densities, and its constant
#   matters when $\sigma$ or $d$ is compared.
# - One backward pass gives both gradients; with a mask, hidden features drop out of it.
# - The output's ReLU allows exact zeros, the noise takes them back and adds impossible negative values.
# - $\sigma$ splits the variance within a class. Directions with less variance than $\sigma^2$ are left to noise; at $\sigma = 0.3$ that is, on hangul,
#   all of them. $d$ bounds the dimension of what $z$ can reach.
#
# Next: $x$ is observed, $z$ is not. [The gradient of the likelihood](03_mle_gradient) that integrates $z$ out.
