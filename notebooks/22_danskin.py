# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The gradient of a maximum
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - state Danskin's theorem with the assumptions that it needs, and say which of the paper's it does not need;
# - say what the gradient at a maximiser is when there are several, and why minus it need not lead downhill;
# - check the gradient of a maximum by finite differences, and measure what a weak search for the maximum does to it;
# - explain the step $1.25\rho/N$, and recognise the failure of one-step training when you see it.
#
# You need nothing but calculus; the attacks of this chapter are written out in it.
# :::
#
# **The question.** Adversarial training minimises a maximum: the loss at the worst image in a ball around each training image
# (paper 2, Eq. 4). To minimise something by gradients one needs its gradient. What is the gradient of a maximum, and what is left of it when
# the maximum is not found?

# %% tags=["parameters"]
seed = 0  # seed of weights, data and batches; 0 or larger
classes = 10  # seen classes of hangul that the last experiment learns; 2 to 95
epochs = 14  # its passes over the training images; the radius grows over the first ten; 2 or more
small_radius = 8.0  # the smaller of its radii, pixels of [0, 255]
large_radius = 64.0  # the larger one, pixels of [0, 255]

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from zsl_lib import attacks, plots
from zsl_lib.data import load
from zsl_lib.learn.adversarial import adversarial_loss
from zsl_lib.models.backbone import SmallResNet

plots.style()
rng = torch.Generator().manual_seed(seed)


# %% [markdown]
# ## The theorem, as printed and as it is
#
# Write $\theta$ for the weights, $\delta$ for the perturbation of an image and $g(\theta, \delta)$ for the loss. (Paper 2 writes $x$ for the first
# and $y$ for the second in its Theorem 1, but means the same.) The perturbation may be anything in a compact set $\Omega$, and
#
# $$
# G(\theta) = \max_{\delta\in\Omega} g(\theta, \delta),\qquad
# \Omega^\star(\theta) = \{\delta\in\Omega : g(\theta, \delta) = G(\theta)\} .
# $$ (eq-dan-max)
#
# > **Paper 2, Theorem 1**, in these letters: if $g(\theta, \delta)$ is convex in $\theta$ for every $\delta$, $G$ is differentiable, and the maximiser
# > $\delta^\star(\theta)$ is unique for every $\theta$, then $\nabla G(\theta) = \nabla_\theta\, g(\theta, \delta^\star(\theta))$.
#
# The loss of a network is not convex in its weights, a maximiser need not be unique, and $G$ has kinks. Strictly the theorem says nothing about the networks
# that it is quoted for. But two of the three assumptions are idle. Suppose only that $G$ is differentiable at $\theta$, as printed, and that $g(\cdot, \delta^\star)$ is,
# for *some* maximiser $\delta^\star$. The difference
#
# $$
# h(\theta') = G(\theta') - g(\theta', \delta^\star)\;\ge\;0,\qquad h(\theta) = 0
# $$ (eq-dan-gap)
#
# has a minimum at $\theta$, so its gradient vanishes there, and $\nabla G(\theta) = \nabla_\theta\, g(\theta, \delta^\star)$. That is the whole proof; convexity
# and uniqueness have not been used. What remains is to ask where $G$ is differentiable, and what happens elsewhere.
#
# **Danskin's theorem** {cite}`danskin1966theory`. Let $\Omega$ be compact, and $g$ and $\nabla_\theta\,g$ continuous in both arguments. Then $G$ has a derivative in every direction
# $d$,
#
# $$
# G'(\theta; d) = \max_{\delta\in\Omega^\star(\theta)} \langle\nabla_\theta\, g(\theta, \delta), d\rangle .
# $$ (eq-dan-direction)
#
# *Why.* From below: $G(\theta + td)\ge g(\theta + td, \delta^\star)$ for each maximiser $\delta^\star$ at $\theta$; subtract $G(\theta) = g(\theta, \delta^\star)$, divide by
# $t$. From above: with a maximiser $\delta_t$ at $\theta + td$,
#
# $$
# G(\theta + td) - G(\theta)\le g(\theta + td, \delta_t) - g(\theta, \delta_t) = t\,\langle\nabla_\theta\,g(\theta + s_t d, \delta_t), d\rangle
# $$
#
# for some $0 \le s_t\le t$. As $t\to 0$ the $\delta_t$ accumulate, by compactness, at a maximiser at $\theta$. Again no convexity. Three things follow:
#
# 1. $G$ is differentiable at $\theta$ *if and only if* all maximisers have the same gradient. One maximiser is enough for that, not necessary.
# 2. $G$ is locally Lipschitz, so it is differentiable almost everywhere (Rademacher): the set of bad $\theta$ has measure 0.
# 3. Elsewhere, the gradients of the maximisers span what takes the gradient's place, Clarke's subdifferential {cite}`clarke1975generalized`:
#
# $$
# \partial G(\theta) = \operatorname{conv}\{\nabla_\theta\, g(\theta, \delta) : \delta\in\Omega^\star(\theta)\} .
# $$ (eq-dan-clarke)
#
# ReLUs break the continuity of $\nabla_\theta\,g$ on a set of measure 0. The one-line proof of {eq}`eq-dan-gap` still holds wherever both gradients exist.
#
# ## A maximum in closed form
#
# The smallest robust recogniser: two classes $y = \pm1$, a linear score $w^\top x$, the logistic loss, an $\ell_\infty$ ball.
# The loss decreases in $y\,w^\top(x + \delta)$, whose minimum over the ball is $y\,w^\top x - \rho\lVert w\rVert_1$, at $\delta^\star = -\rho\,y\operatorname{sign} w$. So
#
# $$
# G(w) = \log\bigl(1 + e^{-m}\bigr),\qquad m = y\,w^\top x - \rho\,\lVert w\rVert_1 ,
# $$ (eq-dan-linear)
#
# a convex function of $w$. Adversarial training of a linear model puts a price on $\lVert w\rVert_1$.

# %%
def logistic(w, x, y):
    """g: mean log(1 + exp(-y w·x)) of x [n, d] and y [n] of ±1."""
    return F.softplus(-y * (x @ w)).mean()


def worst_logistic(w, x, y, rho):
    """G of the equation above."""
    return F.softplus(-(y * (x @ w) - rho * w.abs().sum())).mean()


def gradient(function, at):
    at = at.detach().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


# %% [markdown]
# Two ways to the gradient: differentiate the closed form, or fix the images at their maximisers and differentiate the plain loss.

# %%
# NBVAL_CHECK_OUTPUT
x = torch.randn(20, 5, generator=rng, dtype=torch.float64)
y = torch.sign(x[:, 0] + 0.3 * torch.randn(20, generator=rng, dtype=torch.float64))
w, rho = torch.randn(5, generator=rng, dtype=torch.float64), 0.2
closed = gradient(lambda w: worst_logistic(w, x, y, rho), w)
at_maximiser = x - rho * y[:, None] * w.sign()
danskin = gradient(lambda w: logistic(w, at_maximiser, y), w)
print("the maximum is attained there:", bool((logistic(w, at_maximiser, y) - worst_logistic(w, x, y, rho)).abs() < 1e-12))
print("both gradients agree:", torch.allclose(closed, danskin, rtol=1e-12))
clean = gradient(lambda w: logistic(w, x, y), w)
print("and that of the clean loss is another:", bool((clean - closed).norm() > 0.1 * closed.norm()))

# %% [markdown]
# ## Several maximisers: minus the gradient may lead uphill
#
# If $w_2 = 0$, the second coordinate of $\delta$ has no effect: all its values are maximisers, each with its own gradient, and $\lVert w\rVert_1$ has a kink. It is often
# read, and was published {cite:p}`madry2018towards`, that minus the gradient at *any* maximiser is a direction of descent of $G$. From {eq}`eq-dan-direction` follows less. With
# $g^\star = \nabla_\theta\,g(\theta, \delta^\star)$,
#
# $$
# G'(\theta; g^\star)\ge\lVert g^\star\rVert^2 > 0,\qquad\text{but}\qquad
# G'(\theta; -g^\star) = -\min_{\delta\in\Omega^\star(\theta)}\langle\nabla_\theta\, g(\theta, \delta), g^\star\rangle ,
# $$ (eq-dan-uphill)
#
# which is positive when some other maximiser's gradient points against $g^\star$. Along $+g^\star$ the maximum rises for sure; along $-g^\star$ it need not fall
# {cite}`latorre2023finding`. Our linear recogniser shows it: one image $x = (\frac12, 0)$ of class $+1$, $\rho = 1$ and $w = (1, 0)$.
# The maximisers are $\delta = (-1, -t)$ with $-1\le t\le 1$.

# %%
x_1, y_1 = torch.tensor([[0.5, 0.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
w_1, rho_1 = torch.tensor([1.0, 0.0], dtype=torch.float64), 1.0


def at(t):
    """Gradient of the plain loss at the maximiser (-1, -t)."""
    moved = x_1 + torch.tensor([[-1.0, -t]], dtype=torch.float64)
    return gradient(lambda w: logistic(w, moved, y_1), w_1)


def derivative(d, h=1e-7):
    """G'(w; d) by a difference in that direction alone."""
    ahead = worst_logistic(w_1 + h * d, x_1, y_1, rho_1)
    return ((ahead - worst_logistic(w_1, x_1, y_1, rho_1)) / h).item()


ts = np.linspace(-1, 1, 5)
every = torch.stack([at(t) for t in np.linspace(-1, 1, 201)])
rows = []
for t in ts:
    d = -at(t)
    formula = (every @ d).max().item()
    rows.append({"t": t, "−gradient": f"({d[0]:.2f}, {d[1]:.2f})", "G′, formula": formula, "G′, difference": derivative(d)})
directions = pd.DataFrame(rows)
plots.table(directions, index=False, precision=3)

# %%
# NBVAL_CHECK_OUTPUT
agree = np.allclose(directions["G′, formula"], directions["G′, difference"], atol=1e-5)
print("the formula of directional derivatives holds:", bool(agree))
print("uphill at t = 1 and t = -1:", bool((directions["G′, formula"].iloc[[0, -1]] > 0).all()))
print("downhill at t = 0:", bool(directions["G′, formula"].iloc[2] < 0))

# %% mystnb={"image": {"alt": "G along three directions from the same weights: along minus the gradient at t=1 it rises from the first step on, along minus the mean gradient, t=0, it falls, along plus the gradient at t=1 it rises most steeply."}}
fig, ax = plt.subplots(figsize=(5, 3))
steps = np.linspace(0, 1, 50)
for label, d in {"+ gradient, t = 1": at(1.0), "− gradient, t = 1": -at(1.0), "− gradient, t = 0": -at(0.0)}.items():
    ax.plot(steps, [worst_logistic(w_1 + s * d, x_1, y_1, rho_1) for s in steps], label=label)
ax.set(xlabel="step along the direction", ylabel="$G(w)$, worst loss")
ax.legend()
plt.show()

# %% [markdown]
# Of these five "descent directions" only the middle one descends. What is true instead?
#
# 1. **Where all maximisers have one gradient**, minus it is the direction of steepest descent. That is almost everywhere.
# 2. **The steepest descent** anywhere is along minus the *shortest* vector $v$ of {eq}`eq-dan-clarke`. Since $\langle v', v\rangle\ge\lVert v\rVert^2$ for all $v'$ of a convex set whose
#    shortest vector is $v$, $G'(\theta; -v) = -\lVert v\rVert^2$. Here it is that of $t = 0$. In general it belongs to no single maximiser; one needs several and has to find a mixture of them.
# 3. **If $g$ is convex in $\theta$**, the gradient at any maximiser is a subgradient of $G$: a step along minus it, if short enough, brings $\theta$ closer to *every* minimiser, even while $G$
#    rises. This is where the convexity of the printed theorem would have its use, and a linear model has it.
# 4. **For networks**, steps along Clarke subgradients (from random batches, with step sizes that tend to 0 slowly enough) converge to points with $0\in\partial G(\theta)$
#    {cite}`davis2020stochastic`. That is what adversarial training can lean on: not descent at each step, but no limit except stationary points. It asks for true maximisers and shrinking steps.
#
# The third, here: $G$ is least at $w = 0$.

# %%
# NBVAL_CHECK_OUTPUT
step = 0.5
moved = w_1 - step * at(1.0)
rises = worst_logistic(moved, x_1, y_1, rho_1) > worst_logistic(w_1, x_1, y_1, rho_1)
print("G rises:", bool(rises), "- and the minimiser comes closer:", bool(moved.norm() < w_1.norm()))


# %% [markdown]
# How much does it matter in practice? The kinks have measure 0, so a search never stands on one; but it may step across one at every step, and then the loss zigzags. The paper's claim, that
# one may differentiate at the maximiser, survives with "almost everywhere" in place of its assumptions. The claim that it gives descent does not survive at kinks.
#
# ## A network whose maximum is known
#
# With images of two pixels the ball is a square and the inner problem can be solved: all points of a grid, then a bounded quasi-Newton method from the
# best. Three classes on three arms of a spiral, and a network with two hidden layers of 16 tanh units.

# %%
def spiral(n, rng):
    """Points [n, 2] on three arms, and their arms [n]."""
    y = torch.arange(n) % 3
    t = torch.rand(n, generator=rng, dtype=torch.float64)
    angle, r = 4 * t + 2 * np.pi / 3 * y, 0.2 + t
    x = torch.stack([r * angle.cos(), r * angle.sin()], 1)
    return x + 0.05 * torch.randn(n, 2, generator=rng, dtype=torch.float64), y


def network(x, weights):
    W_1, b_1, W_2, b_2, W_3, b_3 = weights
    return torch.tanh(torch.tanh(x @ W_1.T + b_1) @ W_2.T + b_2) @ W_3.T + b_3


X, Y = spiral(200, rng)
shapes = [(16, 2), (16,), (16, 16), (16,), (3, 16), (3,)]
scale = [1.5, 1.0, 0.25, 0.0, 0.25, 0.0]
weights = [s * torch.randn(shape, generator=rng, dtype=torch.float64) for s, shape in zip(scale, shapes, strict=True)]
weights = [p.requires_grad_() for p in weights]
adam = torch.optim.Adam(weights, lr=0.02)
for _ in range(300):
    adam.zero_grad()
    F.cross_entropy(network(X, weights), Y).backward()
    adam.step()
weights = [p.detach().requires_grad_() for p in weights]


# %%
def losses(x, y, weights):
    return F.cross_entropy(network(x, weights), y, reduction="none")


@torch.no_grad()
def best_of_grid(x, y, rho, weights, points=81):
    """The best point of a grid over the square around each x: [n, 2]."""
    axis = torch.linspace(-rho, rho, points, dtype=x.dtype)
    grid = torch.cartesian_prod(axis, axis)
    found = losses((x[:, None] + grid).reshape(-1, 2), y.repeat_interleave(len(grid)), weights)
    return x + grid[found.view(len(x), -1).argmax(1)]


def polish(x, y, rho, weights, start):
    """A bounded quasi-Newton search from there."""

    def loss(z):
        z = torch.from_numpy(z).requires_grad_()
        value = -losses(z[None], y[None], weights)[0]
        return value.item(), torch.autograd.grad(value, z)[0].numpy()

    box = [(v - rho, v + rho) for v in x.tolist()]
    options = {"ftol": 1e-16, "gtol": 1e-12}
    return torch.from_numpy(minimize(loss, start.numpy(), jac=True, method="L-BFGS-B", bounds=box, options=options).x)


def maximisers(x, y, rho, weights):
    """δ* + x of each point, [n, 2]."""
    fixed = [p.detach() for p in weights]
    starts = best_of_grid(x, y, rho, fixed)
    return torch.stack([polish(*point[:2], rho, fixed, point[2]) for point in zip(x, y, starts, strict=True)])


# %%
few, rho = torch.arange(60), 0.25
worst = maximisers(X[few], Y[few], rho, weights)
on_edge = ((worst - X[few]).abs() > rho - 1e-6).sum(1)
print("maximisers at a corner, on an edge, inside:", *[int((on_edge == k).sum()) for k in (2, 1, 0)])

# %% mystnb={"image": {"alt": "Three spiral arms of points on the plane, shaded by the network's class; around some points squares, each with a line from its centre to the worst point, at corners, on edges or inside."}}
fig, ax = plt.subplots(figsize=(5, 4.5))
axis = torch.linspace(-1.6, 1.6, 200, dtype=torch.float64)
plane = torch.cartesian_prod(axis, axis)
with torch.no_grad():
    shade = network(plane, weights).argmax(1).view(200, 200).T
colours = plt.rcParams["axes.prop_cycle"].by_key()["color"][:3]
ax.contourf(axis, axis, shade, levels=[-0.5, 0.5, 1.5, 2.5], colors=colours, alpha=0.25)
ax.scatter(*X.T, c=[colours[c] for c in Y], s=6)
for i in range(0, 24):
    corner = (X[i] - rho).tolist()
    ax.add_patch(plt.Rectangle(corner, 2 * rho, 2 * rho, fill=False, ec="0.35", lw=0.7))
    ax.plot(*torch.stack([X[i], worst[i]]).T, color="k", lw=1, marker="o", ms=3, markevery=[1])
ax.set(xlabel="first pixel", ylabel="second pixel", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
plt.show()


# %% [markdown]
# Danskin's gradient is the gradient of the plain loss at these points. The judge knows nothing of that: it moves all weights a little, back and forth along a random direction, *solves the
# maximum anew* on both sides, and takes the difference.

# %%
def flat(parts):
    return torch.cat([p.flatten() for p in parts])


def slope_at(x, y, weights):
    """Gradient of the mean loss in all weights, at given images."""
    return flat(torch.autograd.grad(losses(x, y, weights).mean(), weights))


def G(weights, index, rho):
    """The mean of the maxima."""
    return losses(maximisers(X[index], Y[index], rho, weights), Y[index], weights).mean().item()


def difference(d, index, rho, h=1e-4):
    """Slope of G along d, by moving the weights."""
    parts = [p.view_as(q) for p, q in zip(d.split([q.numel() for q in weights]), weights, strict=True)]
    ends = [[q.detach() + s * h * p for p, q in zip(parts, weights, strict=True)] for s in (1, -1)]
    return (G(ends[0], index, rho) - G(ends[1], index, rho)) / (2 * h)


some = torch.arange(12)
danskin = slope_at(worst[some], Y[some], weights)
clean = slope_at(X[some], Y[some], weights)
rows = []
for _ in range(4):
    d = torch.randn(len(danskin), generator=rng, dtype=torch.float64)
    d /= d.norm()
    rows.append({"difference of the maximum": difference(d, some, rho), "Danskin": (danskin @ d).item(), "gradient at the clean image": (clean @ d).item()})
checked = pd.DataFrame(rows)
plots.table(checked, precision=6, index=False)

# %%
# NBVAL_CHECK_OUTPUT
print("Danskin's gradient is the maximum's, to 5 digits:", bool(np.allclose(checked.iloc[:, 0], checked.iloc[:, 1], rtol=1e-5)))
print("the clean one is not, in any direction:", bool((np.abs(checked.iloc[:, 2] - checked.iloc[:, 0]) > 0.1 * np.abs(checked.iloc[:, 0])).all()))


# %% [markdown]
# The network is not convex in its weights, nothing makes the maximisers unique, and the theorem holds to the digits that a difference can give.
#
# ## Broken on purpose: a weak search
#
# In training nobody solves the inner problem. Paper 2 takes $N$ steps of *sign ascent*,
#
# $$
# x' \leftarrow \operatorname{Proj}_{B^\rho_\infty(x)}\bigl\{x' + \varepsilon\operatorname{sign}\nabla_x L(x')\bigr\},\qquad
# \varepsilon = 1.25\,\rho/N .
# $$ (eq-dan-ascent)

# %%
def sign_ascent(loss, x, rho, steps, step=None, start=None, bounds=(-torch.inf, torch.inf)):
    """x' of Eq. (eq-dan-ascent); loss maps images to a number."""
    step = 1.25 * rho / steps if step is None else step
    moved = x if start is None else start
    for _ in range(steps):
        slope = gradient(loss, moved)
        moved = (moved + step * slope.sign()).clamp(x - rho, x + rho).clamp(*bounds)
    return moved


def angle(a, b):
    """Between two gradients, in degrees."""
    return torch.rad2deg(torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))).item()


# %% [markdown]
# Two questions at each $N$: what share of the possible rise of the loss is found, and by what angle the gradient misses the true one. The last rows take the best of ten runs of nine steps from
# random points of the square.

# %%
def searched(x, y, rho, steps, runs=1):
    """The best of some runs, point by point; the first starts at x."""
    best = sign_ascent(lambda z: losses(z, y, weights).sum(), x, rho, steps)
    for _ in range(runs - 1):
        start = x + rho * (2 * torch.rand(x.shape, generator=rng, dtype=x.dtype) - 1)
        other = sign_ascent(lambda z: losses(z, y, weights).sum(), x, rho, steps, start=start)
        better = losses(other, y, weights) > losses(best, y, weights)
        best = torch.where(better[:, None], other, best)
    return best


x, y, rows = X[few], Y[few], []
for radius in (0.05, 0.1, 0.25, 0.5):
    exact = maximisers(x, y, radius, weights)
    top, bottom = (losses(z, y, weights).mean().item() for z in (exact, x))
    true = slope_at(exact, y, weights)
    for steps, runs in ((1, 1), (2, 1), (3, 1), (5, 1), (9, 1), (20, 1), (50, 1), (9, 10)):
        found = searched(x, y, radius, steps, runs)
        share = 100 * (losses(found, y, weights).mean().item() - bottom) / (top - bottom)
        missed = angle(slope_at(found, y, weights), true)
        rows.append({"ρ": radius, "N": steps, "runs": runs, "rise found (%)": share, "angle (°)": missed})
weak = pd.DataFrame(rows)
shown = weak[weak["N"].isin([1, 3, 9, 50])].pivot(index=["runs", "N"], columns="ρ", values=["rise found (%)", "angle (°)"])
plots.table(shown, precision=1)

# %% mystnb={"image": {"alt": "Left, the share of the possible rise against the number of steps, one line a radius: high and flat, lower for larger radii. Right, the angle to the true gradient: near 0 for the smallest radius, tens of degrees for the largest, not falling with steps; a cross for ten restarts lies much lower."}}
fig, axes = plt.subplots(1, 2, figsize=(8, 3))
for radius, part in weak.groupby("ρ"):
    one, ten = part[part["runs"] == 1], part[part["runs"] > 1]
    for ax, what in zip(axes, ("rise found (%)", "angle (°)"), strict=True):
        (line,) = ax.plot(one["N"], one[what], marker="o", ms=4, label=f"ρ = {radius}")
        ax.plot(ten["N"], ten[what], "x", ms=8, color=line.get_color())
        ax.set(xlabel="steps N (× : ten runs)", ylabel=what, xscale="log")
axes[1].legend(bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
table = weak.set_index(["ρ", "runs", "N"])
print("smallest radius: within 5° from one step on:", bool((table.loc[(0.05, 1), "angle (°)"] < 5).all()))
print("largest: fifty steps still miss by more than 15°:", bool(table.loc[(0.5, 1, 50), "angle (°)"] > 15))
print("there, ten runs of nine steps beat one of fifty:", bool(table.loc[(0.5, 10, 9), "angle (°)"] < table.loc[(0.5, 1, 50), "angle (°)"]))

# %% [markdown]
# - While the radius is small against the curvature of the loss, one step is as good as fifty: the loss is nearly linear in the ball and its maximum at the corner that the sign names.
# - At larger radii the rise found still looks respectable, while the *gradient* points tens of degrees away. The value is a poor witness: at an interior maximum an error $e$ of
#   $\delta$ costs $O(e^2)$ in the loss and $O(e)$ in the gradient, and at *another local* maximum of nearly the same height the gradient may be anything.
# - More steps do not help there. The search has converged, to a local maximum that is not the global one. Several starts help.
#
# So "the gradient of the maximum" is what one gets at small radii. At large ones, training follows the gradient of whatever the search finds.
#
# ## Why 1.25
#
# The step rule is older than the paper: Kurakin et al. {cite}`kurakin2017physical` take $\min(\rho + 4,\ 1.25\rho)$ steps of one pixel each; with $\varepsilon = 1$ that is $N = 1.25\rho$, or
# $\varepsilon = 1.25\,\rho/N$. $N$ steps go $1.25\rho$ at most. So a pixel reaches the face of its ball in $\lceil N/1.25\rceil$ steps of one sign, and the rest is spare:

# %%
rows = []
for N in (1, 2, 3, 5, 9, 10, 20):
    needed = -(-4 * N // 5)  # ⌈N / 1.25⌉
    rows.append({"N": N, "needed": needed, "spare": N - needed})
plots.table(pd.DataFrame(rows), index=False)


# %% [markdown]
# With the paper's $N = 3$ of §4.3 nothing is spare: all three signs must agree for a pixel to reach its face. With the $N = 9$ of §5.4 one step may be lost.
# Let each sign be right with probability $p$. How often does a pixel end at the right face, from the clean image and (as others start) from a uniform point?

# %%
def ends_right(N, p, rng, total=1.25, uniform=False, pixels=20_000):
    """Share of pixels that end at +1, with steps of total / N clipped to [-1, 1]."""
    place = 2 * torch.rand(pixels, generator=rng) - 1 if uniform else torch.zeros(pixels)
    for _ in range(N):
        right = torch.rand(pixels, generator=rng) < p
        place = (place + total / N * (2.0 * right - 1)).clamp(-1, 1)
    return 100 * (place > 1 - 1e-4).double().mean().item()


# %% mystnb={"image": {"alt": "Share of pixels at the right face against N, for totals of 1, 1.25 and 2.5 radii and for signs right always or nine times in ten; 2.5 is highest, and from a uniform start only it reaches the face always."}}
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
counts = [1, 2, 3, 5, 9, 20]
for ax, uniform in zip(axes, (False, True), strict=True):
    for total in (1.0, 1.25, 2.5):
        for p, line in ((1.0, "-"), (0.9, ":")):
            shares = [ends_right(N, p, rng, total, uniform) for N in counts]
            ax.plot(counts, shares, line, marker="o", ms=4, color=f"C{[1.0, 1.25, 2.5].index(total)}", label=f"{total}ρ in all" if p == 1 else None)
    ax.set(xlabel="steps N", title="from a uniform point" if uniform else "from the clean image")
axes[0].set(ylabel="pixels at the right face (%)")
axes[1].legend(title="dotted: 9 of\n10 signs right", bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
shares = {u: ends_right(9, 1.0, torch.Generator().manual_seed(0), uniform=u) for u in (False, True)}
print("all signs right, 1.25ρ in all, from the clean image:", round(shares[False]), "%")
print("from a uniform point: near 5/8:", bool(abs(shares[True] - 62.5) < 1))

# %% [markdown]
# The rule is made for a clean start, where it leaves a fifth of the steps to spare. From a uniform point the far face is $2\rho$ away and can be out of reach; there one needs a total of $2\rho$
# or more.
#
# ## One step or several, on letters
#
# Now training, on images: a network of half the committed backbone's width, some seen classes of hangul, $\alpha = 0$ in Eq. 4 (the attacked loss alone), a radius that grows over the first ten epochs, and either one
# step (FGSM) or three (the paper's). The judge is sign ascent with ten steps on held-out images. First: the loop above is the library's attack, and the library's training loss is the loss at its end.

# %%
# NBVAL_CHECK_OUTPUT
letters = load("hangul", images=True)
chosen = letters.seen[:classes]


def images_of(index):
    index = index[torch.isin(letters.labels[index], chosen)]
    return letters.images[index].float(), torch.searchsorted(chosen, letters.labels[index])


train_x, train_y = images_of(letters.trainval)
test_x, test_y = images_of(letters.test_seen)
pixels = (0.0, 255.0)


def fresh(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(classes, (8, 16, 32, 64)).to(memory_format=torch.channels_last)


def loss_of(net, y):
    return lambda x: F.cross_entropy(net(x / 255), y)


net = fresh(seed).eval()
loss = loss_of(net, test_y[:32])
ours = sign_ascent(loss, test_x[:32], 4.0, 3, bounds=pixels)
theirs = attacks.pgd(lambda x: net(x / 255), test_x[:32], test_y[:32], radius=4.0, steps=3)
print("the library's attack:", torch.equal(ours, theirs))
theirs = adversarial_loss(loss, test_x[:32], model=net, radius=4.0, steps=3, alpha=0.0)
print("the library's loss:", torch.allclose(loss(ours), theirs))


# %%
def accuracy(net, x, y):
    with torch.no_grad():
        return 100 * (net(x / 255).argmax(1) == y).double().mean().item()


def judged(net, rho, x, y):
    """Accuracy in per cent: clean, after one step and after ten."""
    net.eval()
    row = {"clean": accuracy(net, x, y)}
    for name, steps in (("one step", 1), ("ten steps", 10)):
        found = sign_ascent(loss_of(net, y), x, rho, steps, bounds=pixels)
        row[name] = accuracy(net, found, y)
    return row


def trained(rho, steps):
    """A network, and what the judge said of it after every second epoch."""
    net, rng = fresh(seed), torch.Generator().manual_seed(seed)
    adam, found = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=5e-4), []
    for epoch in range(1, epochs + 1):
        now = rho * min(1.0, epoch / 10)
        for batch in torch.randperm(len(train_x), generator=rng).split(64):
            options = {"model": net.train(), "radius": now, "steps": steps, "alpha": 0.0}
            adam.zero_grad()
            adversarial_loss(loss_of(net, train_y[batch]), train_x[batch], **options).backward()
            adam.step()
        if epoch % 2 == 0:
            found.append({"epoch": epoch} | judged(net, rho, test_x, test_y))
    return net, pd.DataFrame(found)


runs = {
    (small_radius, 1): trained(small_radius, 1),
    (large_radius, 1): trained(large_radius, 1),
    (large_radius, 3): trained(large_radius, 3),
}

# %% mystnb={"image": {"alt": "Three panels of accuracy against epoch. Small radius, one step: attacks with one and ten steps agree. Large radius, one step: a wide gap opens between them. Large radius, three steps: a smaller gap."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
for ax, ((rho, steps), (_, found)) in zip(axes, runs.items(), strict=True):
    for what, line in (("clean", ":"), ("one step", "--"), ("ten steps", "-")):
        ax.plot(found["epoch"], found[what], line, marker="o", ms=3, label=what)
    ax.set(title=f"ρ = {rho:g}, trained with N = {steps}", xlabel="epoch", ylim=(0, 100))
axes[0].set(ylabel="held-out accuracy (%)")
axes[0].legend(title="attacked by", loc="lower right")
plt.show()

# %%
rows = []
for (rho, steps), (net, _) in runs.items():
    for part, x, y in (("training", train_x[:160], train_y[:160]), ("held out", test_x, test_y)):
        rows.append({"ρ": f"{rho:g}", "trained with N": steps, "images": part} | judged(net, rho, x, y))
last = pd.DataFrame(rows)
last["gap"] = last["one step"] - last["ten steps"]
plots.table(last, index=False)

# %%
# NBVAL_CHECK_OUTPUT
gap = last.set_index(["ρ", "trained with N", "images"])["gap"].xs("training", level="images")
small, large = f"{small_radius:g}", f"{large_radius:g}"
print("small radius: one step of training is enough:", bool(gap[small, 1] < 5))
print("large radius: it is not, by more than 30 points:", bool(gap[large, 1] > 30))
print("and with three steps the gap is smaller:", bool(gap[large, 3] < gap[large, 1]))

# %% [markdown]
# At the small radius one step does what three do: the two attacks agree throughout. At the large one the network learns to beat *the attack it is trained with*, not the ball: under one step it
# recognises most images, under ten few, on the very images it was trained on too. That is **catastrophic overfitting** {cite}`wong2020fast`: the loss has been bent within the ball so that the sign of the gradient
# at the clean image points to a harmless corner. Danskin's gradient was never computed, because the maximiser was never found. Training with three steps closes part of the gap, not all of it:
# at this radius three steps do not find the maximum either.
#
# Two things to keep. First, the radii at which this happens on hangul are more than ten times the paper's largest ($\rho = 4$); one seed, ten classes and a small network, so the place of the onset is not
# to be trusted, but at the paper's radii we found no trace of it. Second, it is invisible to whoever judges with the attack of the training: a reason for
# several attacks, and for more steps than in training, wherever robustness is claimed.
#
# ## Differences from the paper
#
# 1. Theorem 1 is printed with convexity and a unique maximiser. Neither is needed where $G$ is differentiable, neither holds for networks, and where $G$ has a kink the conclusion does not hold
#    for any single maximiser.
# 2. The paper cites convergence of sign gradient descent for the search. That is about a smooth loss without constraints. In a ball, the search stops at local maxima, and then more steps are of no use.
# 3. The origin of $1.25\rho/N$ is not given in the paper; it is Kurakin et al.'s. With the $N = 3$ of §4.3 it leaves no step to spare.
# 4. The loss of Eq. 3 lacks its minus sign, and is a minimum where Eq. 4 has a maximum. Here $g$ is $-\log p$ throughout.
# 5. Training here is with $\alpha = 0$ on seen classes alone, to see what the attacked term does. The whole algorithm is the subject of [the next chapter](23_adversarial_training).
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-dan-regression
# ```
# Robust least squares: $g(w, \delta) = (y - w^\top(x + \delta))^2$ on the ball $\lVert\delta\rVert_\infty\le\rho$. Find $G$ in closed form and its maximiser. When are there two maximisers, and is $G$
# differentiable there?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dan-regression
# :class: dropdown
# ```
# With $e = y - w^\top x$ the residual is $e - w^\top\delta$, and $w^\top\delta$ takes all values in $[-\rho\lVert w\rVert_1, \rho\lVert w\rVert_1]$. So
# $G = (\lvert e\rvert + \rho\lVert w\rVert_1)^2$ at $\delta^\star = -\rho\operatorname{sign}(e)\operatorname{sign}(w)$. At $e = 0$ both $\pm\rho\operatorname{sign} w$ are maximisers. Their gradients
# are $2\rho\lVert w\rVert_1(\pm x + \rho\operatorname{sign}w)$, which differ unless $x = 0$: $G$ has a kink along $e = 0$.

# %%
# NBVAL_CHECK_OUTPUT
x_2, y_2, rho_2 = torch.tensor([1.0, 2.0]).double(), 0.5, 0.3
at_w = torch.tensor([0.4, -0.7], dtype=torch.float64)
robust = gradient(lambda w: ((y_2 - w @ x_2).abs() + rho_2 * w.abs().sum()) ** 2, at_w)
worst_2 = x_2 - rho_2 * torch.sign(y_2 - at_w @ x_2) * at_w.sign()
print("Danskin:", torch.allclose(robust, gradient(lambda w: (y_2 - w @ worst_2) ** 2, at_w)))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-dan-shortest
# ```
# At a point with two maximisers whose gradients are $a$ and $b$, find the shortest vector of their segment. Check on random pairs that minus it descends at the rate $\lVert v\rVert^2$. How often does $-a$ fail to
# descend for random pairs in 2 and in 1,000 dimensions?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dan-shortest
# :class: dropdown
# ```
# $v = a + t(b - a)$ with $t = \langle a, a - b\rangle/\lVert a - b\rVert^2$, cut to $[0, 1]$. And $G'(\theta; -a) = \max(-\lVert a\rVert^2, -\langle a, b\rangle)$ fails to be negative
# when $\langle a, b\rangle\le 0$.

# %%
for n in (2, 1000):
    a, b = torch.randn(2, 10_000, n, generator=rng, dtype=torch.float64)
    t = ((a * (a - b)).sum(1) / (a - b).square().sum(1)).clamp(0, 1)[:, None]
    v = a + t * (b - a)
    slope = torch.maximum((a * -v).sum(1), (b * -v).sum(1))
    exact = torch.allclose(slope, -v.square().sum(1), atol=1e-9)
    fails = 100 * ((a * b).sum(1) <= 0).double().mean().item()
    print(f"{n} dimensions: −v descends at ‖v‖²: {exact}; −a fails in {fails:.0f} % of pairs")

# %% [markdown]
# Half of them, in any dimension, if the gradients were independent. Those of one image's maximisers are not: they are gradients of the same loss at nearby images, and mostly agree.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-dan-second-order
# Let $g(\theta, \delta) = \theta\delta - \delta^2/2$. Find $G$, and the errors of $G$ and of $G'$ when the search stops at $\delta^\star + e$. What does "99 % of the rise found" say about the gradient?
# ```
#
# ```{solution} ex-dan-second-order
# :class: dropdown
# $\delta^\star = \theta$ and $G = \theta^2/2$, so $G' = \theta = \partial_\theta\,g(\theta, \delta^\star)$. At $\delta^\star + e$ the value is $\theta^2/2 - e^2/2$ and the gradient $\theta + e$: an error of second order in the one, of
# first order in the other. If 99 % of $G$ is found from $\delta = 0$, then $e^2 = 0.01\,\theta^2$ and the gradient is off by 10 %.
# ```
#
# ```{exercise-start}
# :label: ex-dan-start
# ```
# With a uniform start in the ball and all signs right, with which probability does a pixel reach its face, as a function of the total length $\kappa\rho$ of the steps? Which $\kappa$ suffices always?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dan-start
# :class: dropdown
# ```
# The distance to the face is uniform on $[0, 2\rho]$, so the probability is $\min(1, \kappa/2)$: $5/8$ for 1.25, and 1 from $\kappa = 2$ on.

# %%
# NBVAL_CHECK_OUTPUT
for kappa in (1.0, 1.25, 2.0):
    found = ends_right(9, 1.0, torch.Generator().manual_seed(1), kappa, True)
    print(f"κ = {kappa}: within 1 point of theory:", bool(abs(found - 50 * kappa) < 1))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-dan-gradient
# ```
# For $y = \pm1$ and the logistic loss, write the gradient in $w$ of the worst case,
#
# $$
# G(w) = \max_{\lVert\delta\rVert_\infty\le\rho}\log\bigl(1 + e^{-y\,w^\top(x+\delta)}\bigr),
# $$
#
# by Danskin's theorem: find the maximiser, and differentiate the loss there. The check knows no theorem: it tries all corners of the ball, and takes a finite difference.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dan-gradient
# :class: dropdown
# ```
# $\delta^\star = -\rho\,y\operatorname{sign}w$, and the loss has the gradient $-y\,(x+\delta)\,/\,(1 + e^{m})$ with $m = y\,w^\top(x+\delta)$.

# %% tags=["exercise"]
import torch


def worst_case_gradient(w, x, y, rho):
    """Gradient [D] of G in w, for an image x [D] and its sign y."""
    ### BEGIN SOLUTION
    worst = x - rho * y * w.sign()
    m = y * (w @ worst)
    return -y * worst * torch.sigmoid(-m)
    ### END SOLUTION


# %% tags=["check"]
from itertools import product

from zsl_lib.exercises import compare

corners = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


def G_by_corners(w, x, y, rho):
    return torch.nn.functional.softplus(-y * ((x + rho * corners) @ w)).max()


x_3 = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
w_3 = torch.tensor([0.8, 0.3, -0.4], dtype=torch.float64)
h = 1e-5 * torch.eye(3, dtype=torch.float64)
for sign, radius in ((1, 0.1), (-1, 0.7)):
    expected = [
        (G_by_corners(w_3 + e, x_3, sign, radius) - G_by_corners(w_3 - e, x_3, sign, radius)) / 2e-5
        for e in h
    ]
    yours = worst_case_gradient(w_3, x_3, sign, radius)
    compare(f"by finite differences, ρ = {radius}", yours, expected)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# The gradient of a maximum is the gradient at a maximiser, wherever there is one gradient; this needs neither convexity nor uniqueness. Elsewhere each maximiser gives an element of Clarke's
# subdifferential, and minus it may lead uphill. On a network with two pixels the theorem holds to the digits of a finite difference. What adversarial training takes is the gradient at what a
# few steps of sign ascent find: nearly the same at small radii, tens of degrees off at large ones, where local maxima and not too few steps are to blame. Training against a weak search can go wrong entirely, and
# then only a stronger search shows it.
