# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compatibility models
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - place any of the classical zero-shot methods by *where* it compares an image with a description;
# - write down what each minimises, and check its solution or its loss by hand;
# - measure *hubness*, and say why regression from features to semantics makes hubs and the reverse fewer;
# - measure the bias towards seen classes, calibrate it away on validation, and compute the exact AUSUC.
#
# You need [The zero-shot problem](01_zero_shot_problem) for metrics, tuning and ESZSL.
# :::
#
# **The question.** A generative method makes features of unseen classes and trains a classifier on them. The methods that
# came before learn a score $F(x, c)$ directly: how well does the image $x$ fit the description $c$? There are
# dozens. What distinguishes them, and which differences matter?

# %% tags=["parameters"]
dataset = "hangul"  # data set: hangul, CUB, AWA1, AWA2, SUN, APY, FLO, CUB100, or a folder
semantics = "att"  # class descriptions: att (attributes) or sent (sentences; CUB, CUB100)
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, or data/
seed = 0  # seed of weights, batches and made-up data; 0 or larger
methods = "all"  # "all", or a list of names of zsl_lib.embedding.available()
search = True  # search settings on validation (methods without a seed); False: defaults
epochs = 10  # passes of methods learned by gradient; 0: as many as each has by default
device = "auto"  # where gradients are taken: auto (CUDA if there is one), cpu or cuda

# %%
import copy
import textwrap
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve_sylvester
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from zsl_lib import embedding, interactive, plots, tuning
from zsl_lib.calibration import Calibrated, ausuc, best, seen_unseen_curve
from zsl_lib.data import load
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.metrics import evaluate, hubness

plots.style()
data = load(dataset, root or None, semantics=semantics).scaled()
validation = data.tuning_split().scaled()  # its "test" classes are validation classes
data

# %% [markdown]
# ## Four places to meet
#
# Features live in $\mathbb R^D$, descriptions in $\mathbb R^K$. To compare them, a method brings the image to the descriptions, the
# description to the features, or both to a third, *latent* space; or it leaves both where they are and joins them by a
# bilinear form $x^\top V c$. Each method of the library says which. The picture is made from that.

# %%
chosen = list(embedding.available()) if methods == "all" else methods
chosen = [chosen] if isinstance(chosen, str) else chosen
kinds = {name: embedding.model(name) for name in chosen}
places = {place: [] for place in ("semantics", "features", "bilinear", "latent")}
for kind in kinds.values():
    places[kind.SPACE].append(kind.NAME)


# %%
def box(x, y, text):
    frame = {"boxstyle": "round,pad=0.6", "fc": "none", "ec": "0.4"}
    ax.text(x, y, text, ha="center", va="center", bbox=frame)


def arrow(start, end, colour, style="-|>", bend=0.0):
    shape = {"arrowstyle": style, "color": colour, "lw": 2, "mutation_scale": 15}
    bent = {"connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, start, arrowprops=shape | bent)


def names(y, place, title, colour, va):
    listed = textwrap.fill(", ".join(places[place]), 40)
    ax.text(0.5, y, f"{title}\n{listed}", ha="center", va=va, color=colour, fontsize=9)


# %% mystnb={"image": {"alt": "Diagram: a box of features and a box of semantics. An arrow from features to semantics, one back, a straight line between both and two arrows to a latent space below, each with the names of its methods."}}
fig, ax = plt.subplots(figsize=(7.5, 4.5))
blue, orange, green, red = plt.rcParams["axes.prop_cycle"].by_key()["color"][:4]
box(0.1, 0.6, "features\n$x\\in\\mathbb{R}^D$")
box(0.9, 0.6, "semantics\n$c\\in\\mathbb{R}^K$")
box(0.5, 0.05, "latent space\n$\\mathbb{R}^d$")
arrow((0.1, 0.72), (0.9, 0.72), blue, bend=-0.25)
arrow((0.8, 0.62), (0.2, 0.62), orange)
arrow((0.2, 0.54), (0.8, 0.54), green, "-")
arrow((0.1, 0.48), (0.39, 0.05), red, bend=0.25)
arrow((0.9, 0.48), (0.61, 0.05), red, bend=-0.25)
names(0.93, "semantics", "image to semantics", blue, "bottom")
names(0.635, "features", "semantics to features", orange, "bottom")
names(0.52, "bilinear", "joined by a bilinear form", green, "top")
names(0.17, "latent", "both to a latent space", red, "bottom")
ax.set(xlim=(0, 1), ylim=(-0.05, 1.1))
ax.axis("off")
plt.show()


# %% [markdown]
# Whoever writes a thirteenth method adds a file with its `SPACE`. It then stands in this picture and in the
# table at the end.
#
# ## There and back: ridge regression
#
# Before the named methods, the plainest of all. Regress descriptions on features, or features on descriptions, and take the nearest
# class:
#
# $$
# W = \arg\min_W \lVert A W - B\rVert^2 + \lambda\lVert W\rVert^2 = (A^\top A + \lambda I)^{-1} A^\top B ,
# $$ (eq-comp-ridge)
#
# where the rows of $A$ and $B$ are the centred features and descriptions of the training images, or the other way round.

# %%
def ridge(A, B, lam):
    """The W of the equation above."""
    return torch.linalg.solve(A.T @ A + lam * torch.eye(A.shape[1], dtype=A.dtype), A.T @ B)


class Regression:
    """Ridge regression to "semantics" or to "features"; the nearest class there wins."""

    def __init__(self, to, lam):
        self.to, self.lam = to, lam

    def fit(self, dataset):
        x = dataset.features[dataset.trainval].double()
        c = dataset.semantics[dataset.labels[dataset.trainval]].double()
        self.mean_x, self.mean_c = x.mean(0), c.mean(0)
        x, c = x - self.mean_x, c - self.mean_c
        self.W = ridge(x, c, self.lam) if self.to == "semantics" else ridge(c, x, self.lam)
        return self

    def scores(self, x, semantics):
        x, c = x.double() - self.mean_x, semantics.double() - self.mean_c
        if self.to == "semantics":
            return -torch.cdist(x @ self.W, c)
        return -torch.cdist(x, c @ self.W)


# %% [markdown]
# Check against scikit-learn, whose `Ridge` centres by itself:

# %%
# NBVAL_CHECK_OUTPUT
X = data.features[data.trainval].double()
S_y = data.semantics[data.labels[data.trainval]].double()  # of each image's class
independent = Ridge(alpha=10.0).fit(X.numpy(), S_y.numpy())
W = Regression("semantics", 10.0).fit(data).W
print("scikit-learn's weights:", bool(np.allclose(independent.coef_.T, W, atol=1e-6)))

# %% [markdown]
# Both directions, $\lambda$ chosen on validation by T1:

# %%
two_ways, rows = {}, {}
for to in ("semantics", "features"):
    grid = {"lam": [1.0, 10.0, 100.0, 1000.0]}
    tried = tuning.search(partial(Regression, to), grid, data)
    lam = tried.loc[0, "lam"]
    two_ways[to] = Regression(to, lam).fit(data)
    rows[f"to {to}"] = {"λ": lam} | evaluate(two_ways[to], data)._asdict()
plots.table(pd.DataFrame(rows).T, formats={"λ": "{:g}"})

# %% [markdown]
# The same data, the same squared error, and the direction alone makes the difference. Why?
#
# ## Hubs
#
# Count how often class $c$ is among the $k$ best of a test image, $N_k(c)$. In many dimensions some points are among the
# nearest neighbours of very many others, and most of hardly any {cite}`radovanovic2010hubs`: these are *hubs*. A long tail
# of $N_k$ has a large skewness
#
# $$
# \operatorname{skew}(N_k) = \frac{\operatorname{mean}\,(N_k - \operatorname{mean} N_k)^3}{(\operatorname{sd} N_k)^3},
# $$ (eq-comp-skewness)
#
# over classes. A recogniser that is always right has a flat
# $N_1$ where each class has the same number of test images.

# %%
# NBVAL_CHECK_OUTPUT
unseen_x = data.features[data.test_unseen]
scores = two_ways["semantics"].scores(unseen_x, data.semantics[data.unseen])
N_1 = torch.bincount(scores.argmax(1), minlength=len(data.unseen)).double()
by_hand = ((N_1 - N_1.mean()) ** 3).mean() / N_1.std(correction=0) ** 3
print("the library's hubness is this:", abs(by_hand.item() - hubness(scores, 1)) < 1e-9)

# %% mystnb={"image": {"alt": "How often each unseen class is predicted, classes sorted: towards semantics a few classes are predicted several times too often, towards features the curve is flatter."}}
fig, ax = plt.subplots(figsize=(5, 3))
rows = {}
for to, model in two_ways.items():
    scores = model.scores(unseen_x, data.semantics[data.unseen])
    named = torch.bincount(scores.argmax(1), minlength=len(data.unseen))
    ax.step(range(1, len(named) + 1), named.sort(descending=True).values, label=f"to {to}")
    rows[f"to {to}"] = {f"skewness of $N_{{{k}}}$": hubness(scores, k) for k in (1, 5)}
ax.axhline(len(unseen_x) / len(data.unseen), color="grey", ls=":", label="fair share")
ax.set(xlabel="unseen class, most often named first", ylabel="$N_1$ (test images)")
ax.legend()
plt.show()
plots.table(pd.DataFrame(rows).T, precision=2)

# %% [markdown]
# Towards semantics the tail is longer. Who are its hubs? Classes near the *centre* of all descriptions are
# named more often:

# %%
scores = two_ways["semantics"].scores(unseen_x, data.semantics[data.unseen])
N_5 = torch.bincount(scores.topk(5).indices.flatten(), minlength=len(data.unseen))
centre = two_ways["semantics"].mean_c
from_centre = (data.semantics[data.unseen].double() - centre).norm(dim=1)
rank_correlation = spearmanr(from_centre, N_5).statistic
print(f"rank correlation of N_5 with the distance from the centre: {rank_correlation:.2f}")

# %% [markdown]
# ### Why ridge makes them
#
# The fitted values are $AW = PB$ with $P = A(A^\top A+\lambda I)^{-1}A^\top$, whose eigenvalues lie in $[0, 1)$. So
# $\lVert AW\rVert < \lVert B\rVert$: *regression shrinks what it maps* {cite}`shigeto2015ridge`. Towards semantics the *images* are drawn to the
# centre, and there the central classes are everybody's neighbour. Towards features it is the
# *classes* that are drawn together.

# %%
# NBVAL_CHECK_OUTPUT
for to, (A, B) in {"semantics": (X, S_y), "features": (S_y, X)}.items():
    A, B = A - A.mean(0), B - B.mean(0)
    mapped = A @ two_ways[to].W
    print(f"to {to}: mapped points have less variance:", bool(mapped.norm() < B.norm()))


# %% [markdown]
# A world in which all can be computed makes it plain. Let $s_c\sim\mathcal N(0, I)$ and $x = s_c + \sigma\varepsilon$. With
# many examples the two regressions are $\mathbb E[s\mid x] = x/(1+\sigma^2)$ and $\mathbb E[x\mid s] = s$. Expand both
# distances and drop what is the same for all classes:
#
# $$
# \begin{aligned}
# \text{to semantics:}\quad -\bigl\lVert \tfrac{x}{1+\sigma^2} - s_c\bigr\rVert^2 &\;\hat=\;
# \tfrac{2}{1+\sigma^2}\,x^\top s_c - \lVert s_c\rVert^2, \\
# \text{to features:}\quad -\lVert x - s_c\rVert^2 &\;\hat=\; 2\,x^\top s_c - \lVert s_c\rVert^2 .
# \end{aligned}
# $$ (eq-comp-two-ways)
#
# The second is $2\sigma^2\log p(x\mid c)$ up to a constant: no recogniser does better. The first weighs the agreement $x^\top s_c$
# too little against the length $\lVert s_c\rVert$, and short descriptions win whatever the image. The more noise, the more so.

# %%
def both_ways(sigma, rng, K=20, classes=200, per_class=10):
    """Ridge both ways in that world: skewness of N_1 and accuracy on new classes."""
    seen, new = torch.randn(2, classes, K, generator=rng, dtype=torch.float64)
    y = torch.arange(classes).repeat_interleave(per_class)
    noise = sigma * torch.randn(2, len(y), K, generator=rng, dtype=torch.float64)
    x, new_x = seen[y] + noise[0], new[y] + noise[1]
    to_semantics = -torch.cdist(new_x @ ridge(x, seen[y], 1.0), new)
    to_features = -torch.cdist(new_x, new @ ridge(seen[y], x, 1.0))
    found = {"to semantics": to_semantics, "to features": to_features}
    right = {k: 100 * (v.argmax(1) == y).double().mean().item() for k, v in found.items()}
    return [
        {"σ": sigma, "direction": k, "skewness": hubness(v, 1), "accuracy": right[k]}
        for k, v in found.items()
    ]


rng = torch.Generator().manual_seed(seed)
sigmas = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
worlds = pd.DataFrame([row for sigma in sigmas for row in both_ways(sigma, rng)])

# %% mystnb={"image": {"alt": "Two panels against the noise. Skewness of N_1: towards semantics it climbs steeply, towards features it stays small. Accuracy: both fall with noise, towards semantics much earlier."}}
fig, axes = plt.subplots(1, 2, figsize=(8, 3))
labels = {"skewness": "skewness of $N_1$", "accuracy": "accuracy on new classes (%)"}
for ax, (what, label) in zip(axes, labels.items(), strict=True):
    for direction, part in worlds.groupby("direction", sort=False):
        ax.plot(part["σ"], part[what], marker="o", label=direction)
    ax.set(xlabel="noise σ", ylabel=label)
axes[0].legend()
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
wide = worlds[worlds["σ"] >= 0.75].pivot(index="σ", columns="direction")
more_hubs = wide["skewness", "to semantics"] > wide["skewness", "to features"]
print("more hubs towards semantics, from σ = 0.75 on:", bool(more_hubs.all()))
fewer_right = wide["accuracy", "to semantics"] < wide["accuracy", "to features"]
print("and fewer right answers:", bool(fewer_right.all()))


# %% [markdown]
# So direction is no matter of taste. To regress towards semantics is to estimate $\mathbb E[s\mid x]$, which no comparison with candidates
# needs; to regress towards features is to estimate $p(x\mid c)$, which recognition is about. On real data hubs are a part of the
# difference, not all of it; an exercise takes them out.

# %% [markdown]
# ## From images to semantics
#
# Three methods map images to descriptions. Each cell below learns on the training set and checks what is
# characteristic of the method; all are tested together at the end.
#
# **DAP** {cite}`lampert2014attribute` is the oldest. It makes attributes binary, $a^c_m\in\{0, 1\}$, and trains a probabilistic classifier
# for each, by logistic regression here. Attributes are taken for independent, so that a class's score is
#
# $$
# F(x, c) = \sum_m \log p(a^c_m\mid x) - \log p(a^c_m) .
# $$ (eq-comp-dap)

# %%
def dap(probability, prior, attributes):
    """Scores [n, C] from p(a_m = 1 | x) [n, M], p(a_m = 1) [M] and attributes [C, M]."""
    has = (probability / prior).log() @ attributes.T
    lacks = ((1 - probability) / (1 - prior)).log() @ (1 - attributes).T
    return has + lacks


# %%
# NBVAL_CHECK_OUTPUT
model = embedding.model("dap")().fit(data)
probability = torch.sigmoid(X @ model.W + model.b)
candidates = model.attributes(data.semantics)
scores = dap(probability[:50], model.mean, candidates)
same = torch.allclose(scores, model.scores(X[:50].float(), data.semantics), rtol=1e-5)
print("the library's scores are these:", same)
share = candidates[data.labels[data.trainval]].mean(0)
as_often = torch.allclose(probability.mean(0), share, atol=1e-4)
print("each attribute is predicted as often as it occurs:", as_often)

# %% [markdown]
# The second line is the derivative of the logistic loss in the bias, set to zero. Independence is the weak
# point: on hangul exactly one initial consonant is right, and DAP may give two of them probability $0.9$ each.
#
# **CMT** {cite}`socher2013zero` is ridge regression grown up: a network with one hidden layer,
#
# $$
# \min_f\;\frac1n\sum_i\lVert s_{y_i} - f(x_i)\rVert^2,\qquad f(x) = W_2\tanh(W_1 x + b_1) + b_2 ,
# $$ (eq-comp-cmt)
#
# and the nearest description. Its authors saw the bias towards seen classes first, and put a *novelty detector* before the decision: a
# Gaussian around each seen description says how usual $f(x)$ is. Only unseen classes compete for an unusual image. `keep` is the
# share of training images that must count as usual.

# %%
budget = {"seed": seed, "device": device} | ({"epochs": epochs} if epochs else {})
rows = {}
for keep in (1.0, 0.95, 0.8):
    model = embedding.model("cmt")(keep=keep, **budget).fit(validation)
    rows[f"keep = {keep:g}"] = evaluate(model, validation)._asdict()
plots.table(pd.DataFrame(rows).T)

# %%
# NBVAL_CHECK_OUTPUT
rows = pd.DataFrame(rows).T
print("the detector does not touch T1:   ", rows["T1"].nunique() == 1)
trades = rows["AU"].is_monotonic_increasing and rows["AS"].is_monotonic_decreasing
print("it trades AS for AU, step by step:", trades)


# %% [markdown]
# (These are validation classes. The detector and calibrated stacking, below, are two ways to move the same balance.)
#
# ## From semantics to images
#
# **SAE** {cite}`kodirov2017semantic` wants one linear map for both directions: what is encoded by $W$ shall be decoded
# by $W^\top$. With $X$ the features and $S_y$ the descriptions
# of the same $n$ images,
#
# $$
# \min_W\;\lVert X - S_y W\rVert^2 + \lambda\lVert XW^\top - S_y\rVert^2 ,
# $$ (eq-comp-sae)
#
# whose gradient vanishes where $S_y^\top S_y\,W + \lambda\,W\,X^\top X = (1+\lambda)\,S_y^\top X$: a Sylvester equation, for which SciPy has a solver.

# %%
def sae(X, S_y, lam):
    return solve_sylvester(S_y.T @ S_y, lam * X.T @ X, (1 + lam) * S_y.T @ X)


# %%
# NBVAL_CHECK_OUTPUT
by_scipy = torch.from_numpy(sae(X.numpy(), S_y.numpy(), 0.1))
model = embedding.model("sae")(lam=0.1).fit(data)
same = torch.allclose(model.W @ X.T, by_scipy @ X.T, rtol=1e-6, atol=1e-8)
print("the library's W is this:", same)

# %% [markdown]
# $W$ can be used in both directions. Here is the lesson of the ridge regressions once more, on validation, with one and the
# same $W$:

# %%
rows = {}
for space in ("semantics", "features"):
    model = embedding.model("sae")(lam=0.1, compare_in=space).fit(validation)
    rows[f"compared in {space}"] = evaluate(model, validation)._asdict()
plots.table(pd.DataFrame(rows).T)

# %% [markdown]
# **DEM** {cite}`zhang2017learning` is the reverse of CMT: a network $f(s) = [W_2[W_1 s + b_1]_+ + b_2]_+$ maps descriptions to features,
#
# $$
# \min_f\;\frac1n\sum_i\lVert x_i - f(s_{y_i})\rVert^2 + \lambda\bigl(\lVert W_1\rVert^2 + \lVert W_2\rVert^2\bigr),
# $$ (eq-comp-dem)
#
# chosen by its authors *because* of hubs. All images of a class have one target, so with $\bar x_c$ the mean of the $n_c$ images
# of class $c$, the first sum splits:
#
# $$
# \frac1n\sum_i\lVert x_i - f(s_{y_i})\rVert^2 = \frac1n\sum_i\lVert x_i - \bar x_{y_i}\rVert^2
# + \sum_c\frac{n_c}n\lVert\bar x_c - f(s_c)\rVert^2 .
# $$ (eq-comp-dem-split)
#
# The first part is fixed. What DEM learns from is one mean a class: some dozens of examples, whatever the number
# of images.

# %%
# NBVAL_CHECK_OUTPUT
dem = embedding.model("dem")(**budget).fit(data)
S, y = data.semantics[data.seen], torch.searchsorted(data.seen, data.labels[data.trainval])


def squared_distance(x):
    """‖x − f(s_c)‖² to each seen class, from DEM's scores."""
    return x.square().sum(1, keepdim=True) - 2 * dem.scores(x, S)


means = torch.stack([X[y == c].mean(0) for c in range(len(S))]).float()
left = squared_distance(X.float())[torch.arange(len(y)), y].mean()
within = (X.float() - means[y]).square().sum(1).mean()
between = squared_distance(means).diagonal() @ torch.bincount(y).float() / len(y)
print("the sum splits as said:", torch.allclose(left, within + between, rtol=1e-4))

# %% [markdown]
# **GFZSL** {cite}`verma2017simple` regresses those means directly and asks for the spread too.
# A class is a Gaussian $\mathcal N(\mu_c, \operatorname{diag}\sigma_c^2)$. For seen
# classes both are estimated from images; kernel ridge regression makes them functions of the description, with $M$ the seen classes' means
# and $\kappa$ a kernel,
#
# $$
# \mu(s) = \bar\mu + \kappa(s, S)\,(\kappa(S, S) + \lambda I)^{-1}(M - \bar\mu),\qquad \log\sigma^2(s)\ \text{likewise},
# $$ (eq-comp-gfzsl)
#
# and $F(x, c) = \log\mathcal N(x;\mu(s_c), \sigma^2(s_c))$. With a linear kernel this is ridge regression in other words, since
# $S^\top(SS^\top + \lambda I)^{-1} = (S^\top S + \lambda I)^{-1}S^\top$:

# %%
# NBVAL_CHECK_OUTPUT
gfzsl = embedding.model("gfzsl")(lam=0.1, kernel="linear").fit(data)
mean, log_var = gfzsl.gaussians(data.semantics)
s, M = S.double(), means.double()
lam = 0.1 * s.square().sum(1).mean()  # the library's kernel is in units of the mean ‖s‖²
by_ridge = M.mean(0) + data.semantics.double() @ ridge(s, M - M.mean(0), lam)
print("means by ridge regression:", torch.allclose(mean, by_ridge, atol=1e-4))
density = torch.distributions.Normal(mean, log_var.exp().sqrt())
density = density.log_prob(X[:50, None]).sum(2)
constant = density - gfzsl.scores(X[:50].float(), data.semantics)
print("scores are log-densities, but for one constant:", bool(np.ptp(constant) < 1e-6))


# %% [markdown]
# GFZSL is the bridge to the rest of the book: a generative model of features given a description, with a Gaussian
# where ABP has a network and a latent vector.

# %% [markdown]
# ## Joined by a bilinear form
#
# $F(x, c) = x^\top V c$ maps nowhere: $x^\top V$ is the image in semantics, $Vc$ the class in features, and the score is the same inner product
# either way. [ESZSL](01_zero_shot_problem) {cite}`romera2015eszsl` asks for scores of $\pm1$ and gets $V$ in closed form. But recognition needs no
# values, only the right *order*. Three ranking losses differ in what they do with the *violations*
#
# $$
# v_c = \bigl[\,\Delta + F(x, s_c) - F(x, s_y)\,\bigr]_+ ,\qquad c\ne y,
# $$ (eq-comp-violation)
#
# of an image of class $y$, by how much each wrong class comes within a margin $\Delta$ of the right one. With $r$ the
# number of violations that are not 0 and $\ell_r = \sum_{i\le r} 1/i$,
#
# $$
# L_{\text{DeViSE}} = \sum_{c\ne y} v_c,\qquad
# L_{\text{SJE}} = \max_{c\ne y} v_c,\qquad
# L_{\text{ALE}} = \frac{\ell_r}{r}\sum_{c\ne y} v_c .
# $$ (eq-comp-ranking)
#
# DeViSE {cite}`frome2013devise` sums them all; SJE {cite}`akata2015evaluation` takes the worst, so few classes get
# a gradient; ALE {cite}`akata2016label` weighs by the rank of the right class, so that a place near the top counts more than one far down.

# %%
def violations(F, y, margin):
    """v [n, C] of scores F [n, C] and right classes y [n]; 0 at the right class."""
    right = F.gather(1, y[:, None])
    return (margin + F - right).clamp(min=0).scatter(1, y[:, None], 0.0)


def devise(v):
    return v.sum(1)


def sje(v):
    return v.amax(1)


def ale(v):
    r = (v > 0).sum(1)
    harmonic = torch.cumsum(1 / torch.arange(1, v.shape[1] + 1), 0)  # ℓ_1, ℓ_2, …
    weight = torch.where(r > 0, harmonic[(r - 1).clamp(min=0)] / r.clamp(min=1), 0.0)
    return weight * v.sum(1)


# %% [markdown]
# Five classes, the last of them right, with a score of 1:

# %%
# NBVAL_CHECK_OUTPUT
F, y_5 = torch.tensor([[0.7, 1.2, -0.5, 0.2, 1.0]]), torch.tensor([4])
v = violations(F, y_5, margin=1.0)
print("violations:", [round(value, 1) for value in v[0].tolist()])
print(f"DeViSE: 0.7 + 1.2 + 0.2       = {devise(v).item():.3f}")
print(f"SJE:    max(0.7, 1.2, 0.2)    = {sje(v).item():.3f}")
print(f"ALE:    (1 + 1/2 + 1/3)/3 · 2.1 = {ale(v).item():.3f}")

# %% [markdown]
# Training starts at $V = 0$, where every wrong class violates by just $\Delta$. So the first loss is known. For
# the second, with all images in one batch, the losses above are applied to the scores after one step:

# %%
# NBVAL_CHECK_OUTPUT
for name, loss in {"devise": devise, "sje": sje, "ale": ale}.items():
    make = partial(embedding.model(name), batch_size=len(X), seed=seed, device=device)
    one, two = make(epochs=1).fit(data), make(epochs=2).fit(data)
    at_zero = one.margin * loss((torch.arange(len(S)) > 0).float()[None]).item()
    after_one = violations(one.scores(X.float(), S), y, one.margin)
    by_hand = [at_zero, loss(after_one).mean().item()]
    print(f"{name:6} agrees:", bool(np.allclose(two.history, by_hand, rtol=1e-4)))

# %% [markdown]
# **LATEM** {cite}`xian2016latent` makes the form piecewise linear: it has several $V_i$ and scores by the best,
#
# $$
# F(x, c) = \max_i x^\top V_i c ,
# $$ (eq-comp-latem)
#
# with DeViSE's loss. Which $V_i$ wins is latent, one might hope: the typeface of a letter, the pose of a bird. What do the
# maps share out in fact?

# %%
x, labels = validation.features[validation.trainval], validation.labels[validation.trainval]
right = torch.searchsorted(validation.seen, labels)
rows = {}
for maps in (1, 2, 8):
    latem = embedding.model("latem")(maps=maps, **budget).fit(validation)
    each = latem.net.cpu().each(x, validation.semantics[validation.seen])  # [maps, n, seen]
    winner = each[:, torch.arange(len(x)), right].argmax(0)
    members = [winner[right == k] for k in right.unique()]
    share = [own.bincount().max() / len(own) for own in members]
    latem.net.to(latem.device)
    found = {"T1": evaluate(latem, validation).T1, "one map for (%)": 100 * np.mean(share)}
    rows[f"{maps} map" + "s" * (maps > 1)] = found
plots.table(pd.DataFrame(rows).T)

# %% [markdown]
# *one map for* is the share of a seen class's images whose right score comes from the class's most used map. It is close to
# 100 %: maps divide the *classes* among themselves, not what differs within a class. So each learns from fewer classes, and unseen
# ones suffer.

# %% [markdown]
# **SynC** {cite}`changpinyo2016synthesized` synthesises a linear classifier for each class. The classifier of $c$ is a weighted mean of those of
# *phantom* classes, here one at each seen class $r$:
#
# $$
# F(x, c) = x^\top\sum_r\omega_{cr}v_r,\qquad
# \omega_{cr} = \frac{\exp(-\lVert s_c - s_r\rVert^2/\sigma^2)}{\sum_q\exp(-\lVert s_c - s_q\rVert^2/\sigma^2)} ,
# $$ (eq-comp-sync)
#
# so it is bilinear in $x$ and $\omega_c$. With $w_c = \sum_r\omega_{cr}v_r$ and $y_{ic} = \pm1$, the $v_r$ minimise
#
# $$
# \frac1n\sum_{i,c}\bigl[1 - y_{ic}\,w_c^\top x_i\bigr]_+^2 + \frac\lambda2\sum_c\lVert w_c\rVert^2 .
# $$ (eq-comp-sync-loss)
#
# Who lends to an unseen class? With a small $\sigma$ it can be read off:

# %%
sync = embedding.model("sync")(sigma=0.5).fit(data)
lent = sync.weights(data.semantics[data.unseen[:4]])
rows = []
for c, weights in zip(data.unseen[:4], lent, strict=True):
    largest = weights.topk(3)
    lenders = zip(data.seen[largest.indices], largest.values, strict=True)
    listed = ", ".join(f"{data.class_names[r]} ({w:.2f})" for r, w in lenders)
    rows.append({"unseen class": data.class_names[c], "largest weights": listed})
plots.table(pd.DataFrame(rows), index=False)

# %% [markdown]
# Validation prefers a wide $\sigma$, at which all lend nearly alike and the differences from $1/\mathcal S$, for $\mathcal S$ seen classes, decide. Where descriptions
# have one length, $\omega_{cr}\propto\exp(2 s_c^\top s_r/\sigma^2)$ is then nearly linear in $s_c$, and SynC a bilinear form like the others.
#
# At the other end, with $\sigma\to 0$, each class is its own phantom, and the loss falls apart into one linear support vector machine a class. scikit-learn
# has that machine; with $C = 1/(n\lambda)$ its objective is the same. On ten classes:

# %%
# NBVAL_CHECK_OUTPUT
ten = data.with_seen(data.seen[:10])
x, labels = ten.features[ten.trainval].double(), ten.labels[ten.trainval]
alone = embedding.model("sync")(lam=0.1, sigma=0.05, tol=1e-7).fit(ten)
w = alone.weights(ten.semantics[ten.seen[:1]]) @ alone.V
svm = LinearSVC(C=1 / (0.1 * len(x)), fit_intercept=False, dual=False, tol=1e-8)
independent = svm.fit(x.numpy(), labels == ten.seen[0]).coef_
same = bool(np.allclose(w, independent, atol=1e-4))
print("scikit-learn's support vector machine:", same)

# %% [markdown]
# ## Both to a latent space
#
# **LDF** {cite}`li2018discriminative` gives an image two vectors of $K$ attributes: $u(x)$ is compared with the description, $v(x)$ with a
# *latent prototype* $p_c$ that nobody has to name. Both are linear in the features and learned together, with triplets of two images $i, j$ of one
# class and $k$ of another:
#
# $$
# \min\;\operatorname{mean}_i\, -\log\frac{\exp u(x_i)^\top s_{y_i}}{\sum_c\exp u(x_i)^\top s_c}
# + \operatorname{mean}_{i, j, k}\bigl[\,m + \lVert v_i - v_j\rVert^2 - \lVert v_i - v_k\rVert^2\,\bigr]_+ .
# $$ (eq-comp-ldf)
#
# The prototype of a seen class is the mean of its $v(x)$. An unseen class borrows: its description is written as a combination of seen ones by ridge
# regression, $s\approx\sum_c\beta_c s_c$, and $p = \sum_c\beta_c p_c$. Then
#
# $$
# F(x, c) = u(x)^\top s_c + v(x)^\top p_c .
# $$ (eq-comp-ldf-score)
#
# What do latent attributes add? With all prototypes at 0 the score is its first half.

# %%
ldf = embedding.model("ldf")(**budget).fit(validation)
named = copy.copy(ldf)
named.prototypes = torch.zeros_like(ldf.prototypes)


class Latent:
    def scores(self, x, semantics):
        return ldf.scores(x, semantics) - named.scores(x, semantics)


halves = {"named attributes": named, "latent attributes": Latent(), "both": ldf}
rows = {name: evaluate(model, validation)._asdict() for name, model in halves.items()}
plots.table(pd.DataFrame(rows).T)

# %% [markdown]
# The latent half is no noise: alone, and by what unseen classes borrow, it is right far more often than chance. What it
# adds to the named half is little here.

# %% [markdown]
# ## The bias towards seen classes
#
# A score is learned where the right class is a seen one, so seen classes have the larger scores. For a test image let
#
# $$
# \delta = \max_{c\ \text{seen}} F(x, c) - \max_{c\ \text{unseen}} F(x, c) ,
# $$ (eq-comp-gap)
#
# the *gap*. Among all classes the image goes to a seen one if $\delta > 0$. ESZSL, with settings from validation, has these
# gaps:

# %%
settings = tuning.search(ESZSL, ESZSL.GRID, data).loc[0, list(ESZSL.GRID)] if search else {}
eszsl = ESZSL(**settings).fit(data)


def gaps(model, index):
    """The gap of each example, and its best seen and best unseen class."""
    scores = model.scores(data.features[index], data.semantics)
    seen, unseen = (scores[:, part].max(1) for part in (data.seen, data.unseen))
    gap = seen.values - unseen.values
    return gap, data.seen[seen.indices], data.unseen[unseen.indices]


of_seen, right_seen, _ = gaps(eszsl, data.test_seen)
of_unseen, _, right_unseen = gaps(eszsl, data.test_unseen)
right_seen = right_seen == data.labels[data.test_seen]
right_unseen = right_unseen == data.labels[data.test_unseen]

# %% mystnb={"image": {"alt": "Histograms of the gap for seen and for unseen test images: both lie mostly right of zero, the unseen ones further left; a cut to the right of zero separates them better."}}
fig, ax = plt.subplots(figsize=(5, 3))
bins = np.linspace(*np.quantile(torch.cat([of_seen, of_unseen]), [0.001, 0.999]), 50)
both = {"seen": (of_seen, plots.SEEN), "unseen": (of_unseen, plots.UNSEEN)}
for label, (gap, colour) in both.items():
    ax.hist(gap, bins, density=True, alpha=0.6, color=colour, label=f"{label} test images")
ax.axvline(0, color="grey", ls=":")
ax.set(xlabel="gap δ (score)", ylabel="density")
ax.legend()
plt.show()
for label, (gap, _) in both.items():
    share = 100 * (gap > 0).double().mean()
    print(f"{label} images that go to a seen class: {share:.1f} %")


# %% [markdown]
# The two kinds of image *differ* in their gaps; only the cut is in the wrong place. Calibrated
# stacking {cite}`chao2016empirical` moves it by a number $\gamma$:
#
# $$
# \hat y = \arg\max_c\; F(x, c) - \gamma\,[c\ \text{seen}] .
# $$ (eq-comp-stacking)
#
# An image now goes to its best seen class if $\delta > \gamma$, else to its best unseen one. So
# with $r_u$, $r_s$ for "the best unseen (seen) class is right", per class as always,
#
# $$
# \mathrm{AU}(\gamma) = \operatorname{mean}\; r_u\,[\delta\le\gamma], \qquad
# \mathrm{AS}(\gamma) = \operatorname{mean}\; r_s\,[\delta>\gamma] .
# $$ (eq-comp-curve)
#
# Both are steps that change only where $\gamma$ is some image's gap. Hence the whole curve is known exactly, from one
# pass over the scores:

# %%
def accuracy(right, labels):
    """Mean over classes, in per cent."""
    of_class = [right[labels == c].double().mean() for c in labels.unique()]
    return 100 * torch.stack(of_class).mean()


def curve_at(gamma):
    """AU and AS at one γ."""
    au = accuracy(right_unseen & (of_unseen <= gamma), data.labels[data.test_unseen])
    return au, accuracy(right_seen & (of_seen > gamma), data.labels[data.test_seen])


# %%
# NBVAL_CHECK_OUTPUT
curve = seen_unseen_curve(eszsl, data)
every = curve.iloc[:: len(curve) // 20]
by_hand = np.array([curve_at(gamma) for gamma in every["gamma"]])
print("the library's curve is this:", bool(np.allclose(every[["AU", "AS"]], by_hand)))
zero = curve[curve["gamma"] <= 0].iloc[-1]
same = bool(np.allclose(zero[["AU", "AS"]], evaluate(eszsl, data)[1:3]))
print("at γ = 0 stand AU and AS:", same)


# %% [markdown]
# Its two ends are the tasks themselves: at $\gamma\to\infty$ no image goes to a seen class and AU is T1. The area under it, the
# **AUSUC**, judges a method whatever $\gamma$ is. H judges one point of it. For use one $\gamma$ must be chosen, and that on validation classes,
# by a model that has not seen them:

# %%
def calibrations(make):
    """A method with γ = 0, with γ from validation, and with the best on test."""
    model, seen = make().fit(data), data.semantics[data.seen]
    curve = seen_unseen_curve(model, data)
    by_validation = best(seen_unseen_curve(make().fit(validation), validation))
    gammas = {"0": 0.0, "from validation": by_validation, "best on test": best(curve)}
    for name, gamma in gammas.items():
        found = evaluate(Calibrated(model, seen, gamma), data)._asdict()
        yield {"γ": name, "its value": gamma} | found | {"AUSUC": ausuc(curve)}


makers = {
    "ESZSL": partial(ESZSL, eszsl.gamma, eszsl.lam),
    "ridge to features": partial(Regression, "features", two_ways["features"].lam),
}
rows = []
for name, make in makers.items():
    rows += [{"method": name} | row for row in calibrations(make)]
balance = pd.DataFrame(rows)
plots.table(balance, index=False, formats={"its value": "{:.2f}"})

# %% mystnb={"image": {"alt": "AS against AU for every \u03b3, a curve for each of two methods, from the AS axis down to the AU axis; the dots of \u03b3 = 0 lie near the AS end, the squares of validation's \u03b3 further along."}}
fig, ax = plt.subplots(figsize=(4.5, 4))
curves = {name: seen_unseen_curve(make().fit(data), data) for name, make in makers.items()}
for name, curve in curves.items():
    plots.seen_unseen_curve(curve, ax, label=name)
found = balance[balance["γ"] == "from validation"]
ax.plot(found["AU"], found["AS"], "ks", mfc="none", label="γ from validation")
ax.legend()
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
h = balance.pivot(index="method", columns="γ", values="H")
print("γ from validation raises H:", bool((h["from validation"] > h["0"]).all()))
same = balance.groupby("method")[["T1", "AUSUC"]].nunique() == 1
print("T1 and AUSUC do not change:", bool(same.all(axis=None)))

# %% [markdown]
# For ridge regression the $\gamma$ of validation is nearly the best one. For ESZSL it is too large. A $\gamma$ has the unit of the
# scores, and carries over only if their scale does. On validation there are fewer seen classes, and ESZSL's gaps are
# wider:

# %%
for name, make in makers.items():
    medians = []
    for part in (validation, data):
        model = make().fit(part)
        scores = model.scores(part.features[part.test_seen], part.semantics)
        gap = scores[:, part.seen].amax(1) - scores[:, part.unseen].amax(1)
        medians.append(f"{gap.median():.2f}")
    print(f"{name}: median gap of seen images, validation and test:", *medians)

# %% [markdown]
# **Move $\gamma$.** What happens to AU, AS and H, and which of them moves first? A question worth asking: how far from its best $\gamma$ may a method stand
# before another one, at its own best, has the higher H?

# %%
marks = {name: {} for name in curves}
for name, gamma, value in balance[["method", "γ", "its value"]].itertuples(index=False):
    marks[name][f"γ: {gamma}"] = value
interactive.calibration_slider(
    curves,
    marks,
    title="AU, AS and H as γ moves",
    alt="For each of two methods AU, AS and H against γ: AU rises, AS falls, and H has its top where they cross; vertical lines at γ = 0, at the best one and at that of validation.",
)


# %% [markdown]
# Calibration creates no knowledge: it slides along a curve that training has fixed. But much of what looks like a better method
# in a table of H is a better place on the same curve. The rows "best on test" are there to show what honest choice
# costs.

# %% [markdown]
# ## All methods
#
# Everything the library has, on one protocol. Methods without randomness have the settings that are best on validation by the mean
# of T1 and H. Those learned by gradient have their defaults, which were chosen on the validation classes of hangul and CUB100,
# and `epochs` passes. *Bias* is the share of unseen images that go to seen classes among all, *hubs* the skewness of $N_1$ among
# unseen classes.

# %%
def configured(name, kind):
    """The method with settings from validation, or its defaults."""
    if embedding.is_random(name):
        return kind(**budget)
    if not search:
        return kind()
    found = tuning.search(kind, kind.GRID, data, "score").loc[0, list(kind.GRID)]
    return kind(**found.to_dict())


def measured(model):
    """All that the table shows of a fitted method, and its curve."""
    curve = seen_unseen_curve(model, data)
    scores = model.scores(unseen_x, data.semantics[data.candidates])
    is_unseen = torch.isin(data.candidates, data.unseen)
    bias = 100 * (~is_unseen[scores.argmax(1)]).double().mean().item()
    found = evaluate(model, data)._asdict() | {"AUSUC": ausuc(curve), "bias": bias}
    return found | {"hubs": hubness(scores[:, is_unseen])}, curve


rows, curves = {}, {}
for name, kind in kinds.items():
    found, curves[kind.NAME] = measured(configured(name, kind).fit(data))
    rows[kind.NAME] = {"place": kind.SPACE} | found
results = pd.DataFrame(rows).T.sort_values("AUSUC", ascending=False).infer_objects()

# %%
highest = results[["T1", "AU", "AS", "H", "AUSUC"]]
lowest = results[["bias", "hubs"]]
bold = pd.concat([highest == highest.max(), lowest == lowest.min()], axis=1)
plots.table(results, best=bold)

# %%
ranks = results[["T1", "H", "AUSUC"]].corr("spearman")
both = ranks.loc["AUSUC", ["T1", "H"]].round(2)
print("rank correlation of AUSUC with T1 and with H:", *both)

# %% mystnb={"image": {"alt": "Four panels, one for each place, of AS against AU for every \u03b3, a line a method; in each the dots at \u03b3 = 0 lie near the seen end of the lines."}}
fig, axes = plt.subplots(2, 2, figsize=(8, 6.5), sharex=True, sharey=True)
for ax, (place, members) in zip(axes.flat, places.items(), strict=True):
    for name in members:
        area = results.loc[name, "AUSUC"]
        plots.seen_unseen_curve(curves[name], ax, label=f"{name} ({area:.0f})")
    ax.set(title=place)
    if members:
        ax.legend(loc="lower left", title="AUSUC")
plt.show()


# %% [markdown]
# On hangul the two methods that model $p(x\mid c)$, DEM and GFZSL, lead; ranking losses with one map follow; DAP is last. All dots
# lie at the upper end of their lines, where AS is bought with AU, and CMT's further along than its line alone would have it: its detector has
# moved it. So its rank by H is better than by AUSUC. This is one data set, one seed and few epochs.
#
# ## What is different from the papers
#
# The details stand at the top of each method's file. In short:
#
# 1. **Inputs.** All methods get the same features and one kind of semantics. The papers' own mostly used older features; some trained the
#    image network along (DeViSE, LDF) or joined several kinds of semantics (SJE).
# 2. **Selection.** Settings are chosen on validation classes only, the number of epochs too.
# 3. **Ranking losses** (ALE, DeViSE, SJE, LATEM) count all wrong classes in mini-batches. The papers draw one wrong class at a time, which was a matter of
#    speed. Features are centred and, as descriptions, of length 1.
# 4. **DAP** has logistic regressions where the paper has support vector machines with calibrated outputs.
# 5. **CMT** has the threshold on the density of seen descriptions; the second detector of the paper is left out.
# 6. **SynC** has its one-versus-other loss and phantoms at the seen classes.
# 7. **SAE** compares in the space that validation prefers; the paper reports both.
# 8. **GFZSL** is the inductive variant, with a prior of variances that keeps constant features harmless.
# 9. **LDF** has one scale: the network that finds a region to zoom into is left out.
# 10. **AUSUC** is exact, from the gap of every image; Chao et al. draw the same curve. The accuracies are per class.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start}
# :label: ex-comp-length
# ```
# By {eq}`eq-comp-two-ways`, hubs come from $-\lVert s_c\rVert^2$, which counts too much. Take it out of ridge regression to semantics:
# score by $x^\top W s_c$, centred, alone. What becomes of hubs, and of T1?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-comp-length
# :class: dropdown
# ```

# %%
class InnerProduct(Regression):
    """Ridge regression to semantics without the class's length."""

    def scores(self, x, semantics):
        return (x.double() - self.mean_x) @ self.W @ (semantics.double() - self.mean_c).T


rows = {}
for kind, name in ((Regression, "distance"), (InnerProduct, "inner product")):
    model = kind("semantics", two_ways["semantics"].lam).fit(data)
    hubs = hubness(model.scores(unseen_x, data.semantics[data.unseen]))
    rows[name] = {"T1": evaluate(model, data).T1, "skewness of $N_1$": hubs}
model = two_ways["features"]
hubs = hubness(model.scores(unseen_x, data.semantics[data.unseen]))
rows["to features"] = {"T1": evaluate(model, data).T1, "skewness of $N_1$": hubs}
plots.table(pd.DataFrame(rows).T, precision=2)

# %% [markdown]
# On hangul the hubs become smaller and T1 rises, by a part of what the other direction gains. The rest is the metric: distance in
# features weighs all $D$ directions as the noise within a class does, more or less; $W$ was fitted to hit descriptions. On
# CUB100, leaving the length out makes hubs of the *long* descriptions instead, and T1 falls.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-comp-dimension
# ```
# Hubs need dimensions. Draw 500 points from $\mathcal N(0, I_K)$ and measure the skewness of $N_{10}$ among the points themselves, for
# $K$ from 2 to 200.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-comp-dimension
# :class: dropdown
# ```

# %%
rng = torch.Generator().manual_seed(seed)
for K in (2, 10, 50, 200):
    points = torch.randn(500, K, generator=rng)
    nearness = -torch.cdist(points, points).fill_diagonal_(torch.inf)
    print(f"K = {K:3}: skewness of N_10 {hubness(nearness, 10):5.2f}")

# %% [markdown]
# Distances of a point to others concentrate around a value that depends on how far the point is from the centre. In many dimensions that
# value decides who is near, and the few points that lie least far out are near to all.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-comp-eszsl-twice
# ```
# Show that ESZSL is ridge regression twice: first from features to the $\pm1$ targets of the seen classes, which gives each class a linear
# classifier $w_c$; then from descriptions to classifiers. Check it with `ridge` of this chapter.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-comp-eszsl-twice
# :class: dropdown
# The first gives $Q = (X^\top X+\gamma I)^{-1}X^\top Y$, whose column $c$ is $w_c$. The second regresses the rows of $Q^\top$ on those of
# $S$: $U = (S^\top S + \lambda I)^{-1}S^\top Q^\top$, so that a class $c$ has the classifier $U^\top s_c$. The score is
# $x^\top U^\top s_c$, and $U^\top = (X^\top X+\gamma I)^{-1}X^\top Y\,S\,(S^\top S + \lambda I)^{-1}$ is ESZSL's $V$.
# ```

# %%
# NBVAL_CHECK_OUTPUT
seen_semantics = data.semantics[data.seen].double()
Y = 2.0 * (data.labels[data.trainval][:, None] == data.seen).double() - 1
classifiers = ridge(X, Y, eszsl.gamma)
V = ridge(seen_semantics, classifiers.T, eszsl.lam).T
print("ridge twice is ESZSL:", torch.allclose(V, eszsl.V, rtol=1e-6, atol=1e-9))

# %% [markdown]
# So ESZSL, too, makes classifiers from descriptions: linearly, where SynC takes a weighted mean.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-comp-chance
# What are T1, H and AUSUC of a recogniser that scores at random, with $\mathcal S$ seen and $\mathcal U$ unseen classes?
# ```
#
# ```{solution} ex-comp-chance
# :class: dropdown
# Let $p$ be the share of images that $\gamma$ sends to unseen classes, the same for seen and unseen images as nothing is known. Then
# $\mathrm{AU} = p/\mathcal U$ and $\mathrm{AS} = (1-p)/\mathcal S$: the curve is a straight line from $(0, 1/\mathcal S)$ to
# $(1/\mathcal U, 0)$, and the area under it $1/(2\,\mathcal S\,\mathcal U)$. T1 is $1/\mathcal U$. H without calibration, where $p = \mathcal U/(\mathcal S+\mathcal U)$, is
# $1/(\mathcal S+\mathcal U)$: AU and AS are both that. As shares, not per cent.
# ```
#
# ```{exercise}
# :label: ex-comp-losses
# Show that $L_{\text{SJE}}$ and $L_{\text{ALE}}$ are at most $L_{\text{DeViSE}}$, and say when all three agree. Is one of the first two always the smaller?
# ```
#
# ```{solution} ex-comp-losses
# :class: dropdown
# Violations are not negative, so their maximum is at most their sum. $\ell_r\le r$, so ALE's factor is at most 1. With at most one
# violation all three are the same; with two or more, $\ell_r < r$ and the sum is above both. Between SJE and ALE nothing is fixed: for $v = (1, 1)$
# the first is $1$ and the second $1.5$; for $v = (1, \epsilon)$ with a small $\epsilon$ the first is $1$ and the second close to $0.75$.
# ```
#
# ```{exercise-start}
# :label: ex-comp-closed
# ```
# Write ESZSL's $V$, the minimum of
#
# $$
# \lVert XVS^\top - Y\rVert^2 + \gamma\,\lVert VS^\top\rVert^2 + \lambda\,\lVert XV\rVert^2 + \gamma\lambda\,\lVert V\rVert^2 ,
# $$
#
# in closed form, without the inverse of a matrix. All norms are Frobenius norms. The check solves the same problem as one system of $DK$ equations, and looks at the gradient.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-comp-closed
# :class: dropdown
# ```
# The gradient is twice $(X^\top X + \gamma I)\,V\,(S^\top S + \lambda I) - X^\top YS$: the four terms are one product. So two solves of the sizes $D$ and $K$ do.

# %% tags=["exercise"]
import torch


def eszsl_closed(X, Y, S, gamma, lam):
    """V [D, K] of features X [n, D], targets Y [n, C] and semantics S [C, K]."""
    ### BEGIN SOLUTION
    left = X.T @ X + gamma * torch.eye(X.shape[1], dtype=X.dtype)
    right = S.T @ S + lam * torch.eye(S.shape[1], dtype=S.dtype)
    V = torch.linalg.solve(left, X.T @ Y @ S)
    return torch.linalg.solve(right, V.T).T
    ### END SOLUTION


# %% tags=["check"]
import numpy as np

from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=g, dtype=torch.float64)
S = torch.rand(5, 3, generator=g, dtype=torch.float64)
Y = 2.0 * torch.eye(5, dtype=torch.float64)[torch.arange(40) % 5] - 1
V = eszsl_closed(X, Y, S, 2.0, 0.5)
left, right = (X.T @ X).numpy() + 2.0 * np.eye(6), (S.T @ S).numpy() + 0.5 * np.eye(3)
expected = np.linalg.solve(np.kron(left, right), (X.T @ Y @ S).flatten()).reshape(6, 3)
compare("V, by one system of equations", V, expected)
V = V.detach().requires_grad_()
parts = {X @ V @ S.T - Y: 1.0, V @ S.T: 2.0, X @ V: 0.5, V: 2.0 * 0.5}
objective = sum(weight * part.square().sum() for part, weight in parts.items())
(slope,) = torch.autograd.grad(objective, V)
compare("length of the gradient at V", slope.norm(), 0)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# A compatibility model is a place to compare and a loss. Regression towards semantics shrinks images to the centre and makes hubs of central classes;
# towards features it estimates what recognition needs. Ranking losses learn an order instead of values; latent spaces stand between.
# All prefer seen classes, and part of what tables of H show is only where each puts the balance: calibration on validation moves it,
# and AUSUC judges without it. What no compatibility model does is to give the unseen classes examples:
# that is [Recognition from synthetic features](08_recognition).
