# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attacks on images
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - derive FGSM, PGD, DeepFool, CW, WRM and ZOO, and say what each must know and what it costs;
# - tell an attack of fixed radius from one of minimal norm, and put both on one curve;
# - recognise an attack that fails for a reason of its own: scores of the wrong scale, pixels at their bounds, too few steps;
# - attack a zero-shot recogniser end to end, among unseen classes and among all.
#
# You need [The zero-shot problem](01_zero_shot_problem), whose ESZSL is attacked here, and calculus.
# :::
#
# **The question.** How little must a letter change before a zero-shot recogniser reads another one?

# %% tags=["parameters"]
dataset = "hangul"  # data set with images: hangul, CUB, CUB100, or a folder; of photographs, 6 or so are enough
root = ""  # folder of the real benchmarks; empty: ZSL_DATA_DIR, else data/
seed = 0  # seed of which images are attacked, and of what is random in attacks; 0 or larger
n_images = 40  # unseen images that are attacked; so many that some are recognised
radius = 4.0  # of the attacks that have one, in pixels of [0, 255]; 1, 2 and 4 in paper 2
cw_steps = 100  # of Adam in each of CW's rounds; 9 in paper 2, 10000 in CW's own; 1 or larger
zoo_images = 4  # images for ZOO, which needs thousands of queries each; 1 to n_images

# %%
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from torch.autograd import grad
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from zsl_lib import attacks, interactive, plots, tuning
from zsl_lib.attacks.common import margin
from zsl_lib.data import load
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.models.backbone import backbone

plots.style()


def rng():
    """A new generator with the chapter's seed."""
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## What an attack is given
#
# An attacker changes pixels. So the recogniser must be a function of pixels, from the first layer to the last: here the backbone's features
# $f(x)$, then ESZSL's bilinear scores $F(x, c) = f(x)^\top V s_c$ from [Compatibility models](11_compatibility_models). ESZSL never saw an image; that its
# features came from a differentiable network is enough.
#
# The **search space** is the set of candidate classes: the unseen ones in the standard task, all in the generalised one. To the attack, that is just which columns
# the scores have.

# %%
options = {} if dataset == "hangul" else {"root": root or None}
data = load(dataset, images=True, **options)
net = backbone("hangul" if dataset == "hangul" else "lite0").requires_grad_(False)
best = tuning.search(ESZSL, ESZSL.GRID, data, "score").loc[0, ["gamma", "lam"]]
eszsl = ESZSL(**best.to_dict()).fit(data)
V = eszsl.V.float()


def score_function(classes, scale=1.0):
    """x [n, channels, H, W] in pixels of [0, 255] to scores [n, C] of those classes."""
    columns = scale * V @ data.semantics[classes].T
    return lambda x: net.features(x / 255) @ columns


chosen = data.test_unseen[torch.randperm(len(data.test_unseen), generator=rng())]
chosen = chosen[:n_images].sort().values
x = data.images[chosen].float()
y = torch.searchsorted(data.unseen, data.labels[chosen])
print(data)
print(f"attacked: {len(x)} images, pixels from {x.min():g} to {x.max():g}")

# %% [markdown]
# **Pixels, radii and steps are in units of [0, 255]** throughout; dividing by 255 and standardising are the network's own business, so a radius of 4 is 4 for every
# network. The score function must agree with ESZSL on stored features:

# %%
known = eszsl.scores(data.features[chosen], data.semantics[data.unseen])
with torch.no_grad():
    ours = score_function(data.unseen)(x)
print(f"correlation with scores of stored features: {np.corrcoef(ours.flatten(), known.flatten())[0, 1]:.5f}")

# %% [markdown]
# **What to maximise.** Two losses, both large where the recogniser is wrong:
#
# $$
# L_{\text{ce}}(x, y) = -\log\frac{e^{F(x, y)}}{\sum_k e^{F(x, k)}},\qquad
# L_{\text{margin}}(x, y) = \max_{k\neq y} F(x, k) - F(x, y) .
# $$ (eq-atk-losses)
#
# The first is Eq. 3 of paper 2 with the minus sign that is missing there. The image is misrecognised exactly where the second is positive. The first depends on the
# *scale* of the scores, which does not change what is recognised; ESZSL's is arbitrary. We multiply the scores by the power of two that makes the cross-entropy of training images the
# smallest, as if they had been learned by cross-entropy, and come back to this choice.

# %%
train = data.trainval[torch.randperm(len(data.trainval), generator=rng())[:1000]]
fitted = eszsl.scores(data.features[train], data.semantics[data.seen])
target = torch.searchsorted(data.seen, data.labels[train])
scales = 2.0 ** torch.arange(-4, 12)
scale = min(scales.tolist(), key=lambda s: F.cross_entropy(s * fitted, target).item())
scores = score_function(data.unseen, scale)


def accuracy(scores, x, y):
    """Share recognised, in per cent (of images, not per class: these are few)."""
    with torch.no_grad():
        return 100 * (scores(x).argmax(1) == y).double().mean().item()


print(f"scale {scale:g}; recognised without attack: {accuracy(scores, x, y):.0f} % of {len(x)}")

# %% [markdown]
# ## A plane to look at
#
# In two dimensions an attack is a path. Three classes with curved boundaries, one point, and a wrapper that writes down every point at which an attack asks for scores:

# %%
centres = torch.tensor([[-1.0, -0.6], [1.3, -0.4], [0.2, 1.5]])
widths = torch.tensor([[1.0, 1.6], [1.4, 0.9], [0.8, 1.1]])
BOX = (-3.0, 3.0)
point, true = torch.tensor([[-0.75, 0.05]]), torch.tensor([0])


def plane(x):
    """Scores [n, 3] of points [n, 2]: each class a hill of its own shape."""
    return -((x[:, None] - centres) / widths).square().sum(2)


def path(attack, **options):
    """Where the attack asks, and where it ends."""
    asked = []

    def recorder(x):
        asked.append(x.detach().clone())
        return plane(x)

    end = attack(recorder, point, true, bounds=BOX, generator=rng(), **options)
    return torch.cat(asked or [point]), end[0]


def draw(axis, title, way, end, ball=None):
    """Regions, the path, its end, and the ball ("box" or "disc") of radius 0.7."""
    ticks = torch.linspace(-2, 2, 200)
    grid = torch.cartesian_prod(ticks, ticks)
    region = plane(grid).argmax(1).reshape(200, 200).T
    axis.contourf(ticks, ticks, region, [-1, 0.5, 1.5, 3], cmap=ListedColormap(["#dfe8f2", "#f7e6cf", "#dff0e4"]))
    x0, y0 = point[0].tolist()
    if ball == "box":
        axis.add_patch(plt.Rectangle((x0 - 0.7, y0 - 0.7), 1.4, 1.4, fill=False, ls=":", color="black"))
    elif ball:
        axis.add_patch(plt.Circle((x0, y0), 0.7, fill=False, ls=":", color="black"))
    axis.plot(*way.T, ".-", color="grey", lw=0.8, ms=4)
    axis.plot(x0, y0, "o", color="black", ms=6)
    axis.plot(*end, "X", color="#b2182b", ms=9, mec="white")
    axis.set(title=title, xticks=[], yticks=[], xlim=(-2, 2), ylim=(-2, 2), aspect="equal")


# %% mystnb={"image": {"alt": "Nine panels, each with three coloured decision regions, a black start point and a red cross where an attack ends. Noise ends anywhere in a dotted square; FGSM and PGD at a corner or edge of it beyond the boundary; PGD-l2 on a dotted circle; DeepFool, CW and ZOO just beyond the nearest boundary; WRM where slope and penalty balance."}}
runs = {
    "noise": (attacks.noise, {"radius": 0.7}, "box"),
    "FGSM": (attacks.fgsm, {"radius": 0.7}, "box"),
    "IFGSM (9 steps)": (attacks.pgd, {"radius": 0.7}, "box"),
    "PGD-ℓ2 (9 steps)": (attacks.pgd, {"radius": 0.7, "norm": "l2"}, "disc"),
    "DeepFool-ℓ2": (attacks.deepfool, {}, None),
    "DeepFool-ℓ∞": (attacks.deepfool, {"norm": "linf"}, None),
    "CW-ℓ2": (attacks.cw, {"steps": 150, "lr": 0.02}, None),
    "WRM (γ = 0.8)": (attacks.wrm, {"gamma": 0.8, "steps": 15}, None),
    "ZOO": (attacks.zoo, {"steps": 40, "coordinates": 1, "h": 0.02}, None),
}
fig, axes = plt.subplots(3, 3, figsize=(7.5, 7.8))
for axis, (name, (attack, settings, ball)) in zip(axes.flat, runs.items(), strict=True):
    draw(axis, name, *path(attack, **settings), ball)
plt.show()


# %% [markdown]
# Grey: where it asked. Red: what it gives back. The rest of this section derives them one by one.
#
# ## A step: FGSM
#
# Linearise the loss, $L(x + \delta)\approx L(x) + g^\top\delta$ with $g = \nabla_x L$. Over $\lVert\delta\rVert_\infty\le\rho$ each pixel can be chosen by itself, so
#
# $$
# \delta^\star = \rho\,\operatorname{sign} g,\qquad g^\top\delta^\star = \rho\,\lVert g\rVert_1 ;
# \qquad\text{over } \lVert\delta\rVert_2\le\rho:\quad \delta^\star = \rho\,\frac{g}{\lVert g\rVert_2},\quad g^\top\delta^\star = \rho\,\lVert g\rVert_2 .
# $$ (eq-atk-fgsm)
#
# The gain is $\rho$ times the *dual* norm of the slope. That is why the sign is so strong: many small slopes in as many pixels add up {cite}`goodfellow2015explaining`.

# %%
# NBVAL_CHECK_OUTPUT
def slope(scores, x, y, loss=lambda v, y: F.cross_entropy(v, y, reduction="sum")):
    """Gradient of each image's loss in its pixels."""
    x = x.clone().requires_grad_()
    return grad(loss(scores(x), y), x)[0]


by_hand = (x + radius * slope(scores, x, y).sign()).clamp(0, 255)
library = attacks.fgsm(scores, x, y, radius=radius)
print("FGSM by hand is the library's:", torch.equal(by_hand, library))


# %% [markdown]
# ## Many steps: IFGSM and PGD
#
# The loss is not linear. So take small steps, and bring each back into the ball and into [0, 255] {cite}`kurakin2017physical,madry2018towards`:
#
# > **Paper 2, §3.3.** $x'\leftarrow\mathrm{Proj}_{B_\infty^\rho(x)}\{x' + \varepsilon\operatorname{sign}\nabla_{x}L(x', y)\}$, $N$ times, with $\varepsilon = 1.25\,\rho/N$.
#
# $$
# \mathrm{Proj}_{B_\infty^\rho(x)\cap[0, 255]^D}(u) = \min\{\max\{u,\; x - \rho,\; 0\},\; x + \rho,\; 255\} .
# $$ (eq-atk-project)

# %%
# NBVAL_CHECK_OUTPUT
def ifgsm(scores, x, y, radius, steps=9):
    """Paper 2's inner loop, from the clean image."""
    moved = x
    for _ in range(steps):
        moved = moved + 1.25 * radius / steps * slope(scores, moved, y).sign()
        moved = moved.clamp(x - radius, x + radius).clamp(0, 255)
    return moved


library = attacks.pgd(scores, x, y, radius=radius)
print("IFGSM by hand is the library's:", torch.allclose(ifgsm(scores, x, y, radius), library, atol=1e-3))


# %% [markdown]
# The total way, 1.25 radii, lets a pixel reach the surface with a quarter of its steps to spare. `attacks.pgd` can also begin at a random point (`start="uniform"`), more than once (`restarts`), and climb the
# margin (`loss="margin"`). Training and testing in this book call this one function.
#
# ## To the nearest boundary: DeepFool
#
# Ask the other way round: which is the *smallest* perturbation that is misrecognised? For linear scores, with $f_k = F(\cdot, k) - F(\cdot, y)$, the boundary to class $k$ is a plane at the distance
#
# $$
# \frac{\lvert f_k(x)\rvert}{\lVert\nabla f_k\rVert_2},\qquad\text{reached by}\quad r_k = \frac{\lvert f_k(x)\rvert}{\lVert\nabla f_k\rVert_2^2}\,\nabla f_k .
# $$ (eq-atk-deepfool)
#
# DeepFool goes to the nearest plane, linearises again there, and stops once the class has changed {cite}`moosavi2016deepfool`; 2 % of overshoot carries it across. In $\ell_\infty$ the norm is replaced by its dual, the 1-norm.

# %%
# NBVAL_CHECK_OUTPUT
def deepfool(x, y, steps=20, overshoot=0.02):
    """Of one point [1, 2] in the plane."""
    total = torch.zeros_like(x)
    for _ in range(steps):
        moved = x + (1 + overshoot) * total
        f = plane(moved)[0] - plane(moved)[0, y]
        if f.argmax() != y:
            break
        J = jacobian(plane, moved)[0, :, 0]
        w = J - J[y]
        way = (f.abs() / w.norm(dim=1)).nan_to_num(torch.inf)
        k = way.argmin()
        total = total + (way[k] + 1e-4 * (BOX[1] - BOX[0])) * w[k] / w[k].norm()
    return moved


_, library = path(attacks.deepfool)
print("DeepFool by hand is the library's:", torch.allclose(deepfool(point, 0), library, atol=1e-5))

# %% [markdown]
# Is it the smallest? On the plane we can try all directions:

# %%
angles = torch.linspace(0, 2 * torch.pi, 2000)
rays = torch.stack([angles.cos(), angles.sin()], 1)
lengths = torch.linspace(0.01, 2, 1000)
reached = plane((point + lengths[:, None, None] * rays).reshape(-1, 2)).argmax(1).reshape(1000, 2000) != 0
nearest = lengths[reached.any(1)].min().item()
for name in ("DeepFool-ℓ2", "CW-ℓ2", "ZOO"):
    attack, settings, _ = runs[name]
    found = (path(attack, **settings)[1] - point[0]).norm().item()
    print(f"{name:12} {found:.3f}, {found / nearest:.3f} of the smallest possible")

# %% [markdown]
# DeepFool stops at the first boundary point that it meets, which here is nearly the nearest. CW goes on searching, and ZOO does so blindly, one coordinate at a time.
#
# ## The smallest perturbation as a programme: CW
#
# Carlini and Wagner {cite}`carlini2017towards` put the constraint into the objective, with a hinge that is 0 once the image is misrecognised:
#
# $$
# \min_w\;\lVert x'(w) - x\rVert_2^2 + c\,\max\{-L_{\text{margin}}(x', y),\, 0\},\qquad x'(w) = \tfrac{255}{2}(1 + \tanh w) .
# $$ (eq-atk-cw)
#
# Whatever $w$ is, $x'$ is a picture. Adam minimises over $w$, and $c$ is found by binary search: the smallest with which the image is still misrecognised. How large must $c$ be? For a linear margin with slope
# $m'$ the objective along the way $t$ is $t^2 + c\,(\lvert m\rvert - \lVert m'\rVert t)_+$, and its minimum is at the boundary as soon as $c\ge 2\lvert m\rvert/\lVert m'\rVert^2$. The library begins with twice this, so that the scale of the scores does
# not matter. The authors' program begins at $10^{-3}$ and multiplies by ten.
#
# **The price of tanh.** Its derivative is $1 - \tanh^2$, zero at the bounds. Real pictures have pixels there; letters on white paper have little else. CW's authors begin at 0.999999 of the way to the bound:

# %%
at_bound = 100 * ((x == 0) | (x == 255)).double().mean()
start = torch.tensor(0.999999).atanh()
one_pixel = torch.tensor(1 - 2 / 255).atanh()
print(f"pixels at a bound: {at_bound:.0f} %")
print(f"they begin at w = {start:.2f}; a change by one pixel is at w = {one_pixel:.2f}")
for lr in (0.01, 0.05):
    print(f"way of {(start - one_pixel) / lr:.0f} steps of {lr}")

# %% [markdown]
# Adam divides by the size of the gradient, so a saturated pixel does move, by at most about `lr` in $w$ a step. Until it has come that way, CW can use the other pixels only:

# %%
right = scores(x).argmax(1) == y
few_x, few_y = x[right][:6], y[right][:6]


def need(moved, x):
    """ℓ2 length of each perturbation; infinite where there is none."""
    length = (moved - x).flatten(1).norm(dim=1)
    return length.where(length > 0, torch.inf)


reference = need(attacks.deepfool(scores, few_x, few_y), few_x)
for steps, lr in ((9, 0.01), (9, 0.05), (cw_steps, 0.01), (cw_steps, 0.05)):
    images = attacks.cw(scores, few_x, few_y, steps=steps, lr=lr, searches=2)
    ratio = need(images, few_x) / reference
    found = f"found for {ratio.isfinite().sum()} of {len(ratio)}"
    print(f"CW, {steps:3} steps of {lr}: {found}, median length {ratio.median():.2f} of DeepFool's")

# %% [markdown]
# Only the last can move all pixels, and only it comes near DeepFool. Paper 2 gives CW nine iterations. On hangul these find perturbations that are much too large, or none: robustness measured with such an attack is the attack's, not the model's.
#
# ## A penalty instead of a ball: WRM
#
# Sinha et al. {cite}`sinha2018certifying` bound how far the *distribution* of images may move in a Wasserstein distance. The Lagrangian of that constraint falls apart image by image:
#
# $$
# x' = \arg\max_{x'}\; L(x', y) - \gamma\,\lVert x' - x\rVert_2^2 .
# $$ (eq-atk-wrm)
#
# One $\gamma$ for all: an image that is easy to attack may move far, another hardly at all. To first order $x' - x = \nabla L/2\gamma$; and if $2\gamma$ exceeds the largest curvature of $L$, the objective is concave and
# ascent finds *the* maximum, with a certificate. For a quadratic loss $b^\top\delta + \frac12\delta^\top A\,\delta$ it is $\delta = (2\gamma I - A)^{-1}b$:

# %%
# NBVAL_CHECK_OUTPUT
A, b = torch.tensor([[0.5, 0.2], [0.2, -0.3]]), torch.tensor([0.3, -0.4])


def quadratic(x):
    """Scores 0 and L(x): the margin of class 0 is L."""
    return torch.stack([torch.zeros(len(x)), x @ b + ((x @ A) * x).sum(1) / 2], 1)


origin = torch.zeros(1, 2)
found = attacks.wrm(quadratic, origin, true, gamma=0.8, loss="margin", steps=200, bounds=BOX)[0]
exact = torch.linalg.solve(2 * 0.8 * torch.eye(2) - A, b)
print("WRM", found.numpy().round(3), "and algebra", exact.numpy().round(3))

# %% [markdown]
# Paper 2 gives WRM magnitudes $\rho\in\{1, 2, 4\}$ as to FGSM and IFGSM, and neither $\gamma$ nor a norm. We read: ascent of {eq}`eq-atk-wrm`, projected on the same $\ell_\infty$ ball; and without a better rule, $\gamma$ is set image by image
# such that $\nabla L/2\gamma$ has a root mean square of $\rho$ in each pixel.
#
# ## Without gradients: ZOO
#
# An attacker who only sees scores can still measure a slope, two queries a pixel {cite}`chen2017zoo`:
#
# $$
# \hat g_i = \frac{F(x' + h\,e_i) - F(x' - h\,e_i)}{2h} .
# $$ (eq-atk-zoo)
#
# ZOO puts $\hat g$ into CW's objective and lets Adam move a few randomly drawn pixels at a time. The estimate is good; it is the number of pixels that costs:

# %%
one, label = x[right][:1], y[right][:1]
true_slope = slope(scores, one, label, lambda v, y: margin(v, y).sum()).flatten()
pixels = torch.randperm(one.numel(), generator=rng())[:100]
step = torch.zeros(100, one.numel()).scatter_(1, pixels[:, None], 0.1).reshape(-1, *one.shape[1:])
with torch.no_grad():
    ahead, behind = (margin(scores(one + s * step), label.expand(100)) for s in (1, -1))
estimate = (ahead - behind) / 0.2
print(f"correlation of 100 differences with the slope: {np.corrcoef(estimate, true_slope[pixels])[0, 1]:.4f}")
print(f"queries for one whole gradient: {2 * one.numel()}")


# %% [markdown]
# ## One table, two kinds
#
# FGSM, IFGSM and WRM have a radius and ask *does it break within it?* DeepFool, CW and ZOO have none and ask *how near is the break?* Their accuracy alone says little: with enough steps it is 0 for every
# undefended model, and otherwise it measures the steps. Paper 2's tables print it next to the others, with "-" for the magnitude. What can be compared is the *norm*: an image survives radius $\rho$ under DeepFool if the
# perturbation that DeepFool needs is longer than $\rho$.

# %%
def run(attack, scores, x, y, **settings):
    """The attacked images, and what it took: a row of the table."""
    counted, start = attacks.Counted(scores), time.perf_counter()
    moved = attack(counted, x, y, generator=rng(), **settings)
    seconds = time.perf_counter() - start
    was_right = scores(x).argmax(1) == y  # not counted
    delta = (moved - x).flatten(1)[was_right]
    broken = scores(moved).argmax(1)[was_right] != y[was_right]
    row = {"recognised (%)": accuracy(scores, moved, y), "images": len(x)}
    row |= {"median ℓ∞": delta[broken].abs().amax(1), "median ℓ2": delta[broken].norm(dim=1)}
    row |= {key: row[key].median().item() for key in ("median ℓ∞", "median ℓ2")}
    row["gradients"] = counted.gradients / len(x)
    row["queries"] = (counted.images - counted.gradients) / len(x)
    row["ms an image"] = 1000 * seconds / len(x)
    return moved, row


cases = {
    "noise (signs)": (attacks.noise, {"radius": radius, "kind": "sign"}),
    "FGSM": (attacks.fgsm, {"radius": radius}),
    "IFGSM": (attacks.pgd, {"radius": radius}),
    "PGD on the margin": (attacks.pgd, {"radius": radius, "loss": "margin"}),
    "WRM": (attacks.wrm, {"radius": radius}),
    "DeepFool-ℓ∞": (attacks.deepfool, {"norm": "linf"}),
    "DeepFool-ℓ2": (attacks.deepfool, {}),
    "CW-ℓ2": (attacks.cw, {"steps": cw_steps, "searches": 2}),
    "ZOO-ℓ2": (attacks.zoo, {"steps": 20, "coordinates": 32, "lr": 0.05}),
}
moved, rows = {}, {}
for name, (attack, settings) in cases.items():
    part = torch.arange(len(x))
    if name == "ZOO-ℓ2":  # on images that are recognised
        part = right.nonzero().flatten()[:zoo_images]
    moved[name], rows[name] = run(attack, scores, x[part], y[part], **settings)
table = pd.DataFrame(rows).T
whole = dict.fromkeys(("images", "gradients", "queries", "ms an image"), "{:.0f}")
plots.table(table, formats=whole)


# %% [markdown]
# The norms are medians over the images that were recognised before and are not after; gradients count passes forward and backward, queries passes forward only, both for one image. DeepFool differentiates the scores of nine classes
# in each pass. ZOO has recognised images only.
#
# Read it in this order. Noise of the same size does nothing. One step of FGSM takes most of the accuracy, nine steps more. The minimal-norm attacks break everything, as they may go as far as they like;
# what they say stands in the columns of norms. ZOO, which has seen a small part of the pixels only, needs the longest ways.
#
# ## How accuracy falls with the radius

# %%
def survivors(attack, norm, **settings):
    """Share still recognised at each radius, for a minimal-norm attack: those that need more."""
    found = moved[attack] - x
    wrong = scores(moved[attack]).argmax(1) != y
    need = found.flatten(1).abs().amax(1) if norm == "linf" else found.flatten(1).norm(dim=1)
    need = need.where(wrong, torch.inf)
    return lambda radius: 100 * (need > radius).double().mean().item()


def at(attack, **settings):
    """The same of an attack with a radius."""
    return lambda radius: accuracy(
        scores, attack(scores, x, y, radius=radius, generator=rng(), **settings), y
    )


curves = {
    "linf": {
        "noise (signs)": at(attacks.noise, kind="sign"),
        "FGSM": at(attacks.fgsm),
        "IFGSM": at(attacks.pgd),
        "PGD on the margin": at(attacks.pgd, loss="margin"),
        "WRM": at(attacks.wrm),
        "DeepFool-ℓ∞": survivors("DeepFool-ℓ∞", "linf"),
    },
    "l2": {
        "noise (signs)": at(attacks.noise, kind="sign", norm="l2"),
        "PGD-ℓ2 on the margin": at(attacks.pgd, norm="l2", loss="margin"),
        "DeepFool-ℓ2": survivors("DeepFool-ℓ2", "l2"),
        "CW-ℓ2": survivors("CW-ℓ2", "l2"),
    },
}
per_pixel = np.sqrt(x[0].numel())
radii = {"linf": [0.5, 1, 2, 4, 8], "l2": [per_pixel * r for r in (0.5, 1, 2, 4, 8)]}
falls = {norm: {n: [f(r) for r in radii[norm]] for n, f in fs.items()} for norm, fs in curves.items()}

# %% mystnb={"image": {"alt": "Two panels of accuracy against radius, l-infinity and l2. Noise stays level; FGSM, IFGSM, PGD on the margin, WRM and DeepFool fall, PGD on the margin lowest in the left panel; CW, DeepFool and PGD fall together in the right."}}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
marks = ["s", "o", "^", "D", "v", "x"]
for axis, (norm, found) in zip(axes, falls.items(), strict=True):
    for (name, values), mark in zip(found.items(), marks, strict=False):
        colour = {"color": "grey"} if name.startswith("noise") else {}
        axis.plot(radii[norm], values, marker=mark, ms=5, label=name, **colour)
    axis.axhline(100 / len(data.unseen), color="black", ls=":", lw=1)
    axis.set(xscale="log", xlabel=f"radius in {'ℓ∞' if norm == 'linf' else 'ℓ2'} (pixels of [0, 255])", ylim=(-3, None))
    axis.set_xticks(radii[norm], [f"{r:g}" if norm == "linf" else f"{r:.0f}" for r in radii[norm]])
    axis.minorticks_off()
    axis.legend()
axes[0].set(ylabel="recognised (%)", title="dotted: chance")
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
left = falls["linf"]
ordered = all(a >= b for a, b in zip(left["noise (signs)"], left["PGD on the margin"], strict=True))
print("noise is the floor of the strongest attack at every radius:", ordered)
print("IFGSM falls with the radius:", left["IFGSM"] == sorted(left["IFGSM"], reverse=True))

# %% [markdown]
# The distance between noise and attack is the point of this chapter: the direction does it, not the size. Curves may go below chance, since an attacked image is not a random one. The attacks lie close together: at such small radii the scores are nearly
# linear, and one good direction is as good as another. The radius that misleads is a few grey levels of 255.
#
# ## What it looks like
#
# Fig. 6 of paper 2, on a letter. The rows of differences are magnified around grey; their largest pixel stands above.

# %% mystnb={"image": {"alt": "Upper row: a letter, clean and under seven attacks, looking much alike. Lower row: the differences, magnified: speckles all over the picture for noise and the attacks in l-infinity, a few strokes' edges for DeepFool-l2 and CW."}}
shown = ["noise (signs)", "FGSM", "IFGSM", "WRM", "DeepFool-ℓ∞", "DeepFool-ℓ2", "CW-ℓ2"]
tried = torch.stack([scores(moved[name]).argmax(1) != y for name in shown[4:]]).all(0)
i = int((right.double() + tried.double()).argmax())  # recognised, then misread by all three


def picture(axis, image, title):
    """Letters dark on light, photographs as they are."""
    image = image.permute(1, 2, 0) / 255
    axis.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray_r", vmin=0, vmax=1)
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


fig, axes = plt.subplots(2, len(shown) + 1, figsize=(11, 3.2))
picture(axes[0, 0], x[i], "clean")
axes[1, 0].set_axis_off()
for k, name in enumerate(shown, 1):
    delta = moved[name][i] - x[i]
    wrong = scores(moved[name][i][None]).argmax(1) != y[i]
    picture(axes[0, k], moved[name][i], f"{name}\n{'misread' if wrong else 'read'}")
    most = delta.abs().max()
    picture(axes[1, k], 127.5 + 127.5 * delta / most, f"± {most:.1f}")
plt.show()

# %% mystnb={"image": {"alt": "A letter under FGSM, IFGSM and WRM at radii 1, 2, 4, 8 and 16: up to 4 it looks clean, at 16 the paper is mottled."}}
magnitudes = (1, 2, 4, 8, 16)
fig, axes = plt.subplots(3, len(magnitudes), figsize=(6.5, 4.6))
for row, (name, attack) in zip(axes, {"FGSM": attacks.fgsm, "IFGSM": attacks.pgd, "WRM": attacks.wrm}.items(), strict=True):
    for axis, rho in zip(row, magnitudes, strict=True):
        image = attack(scores, x[i : i + 1], y[i : i + 1], radius=float(rho))
        wrong = scores(image).argmax(1) != y[i]
        picture(axis, image[0], f"{name}, ρ = {rho}\n{'misread' if wrong[0] else 'read'}")
plt.show()

# %% [markdown]
# The paper finds perturbations perceptible from $\rho > 4$ on, in birds. So it is on a letter, whose blank paper turns mottled; but the letter stays legible far beyond, and the recogniser has misread it long before.
#
# **Move $\rho$.** What happens to the confidence *before* the answer changes? A question worth asking: once the answer is wrong, how sure of it is the recogniser, and does noise of the same size ever bring it there?

# %%
several = (right.double() + tried.double()).argsort(descending=True, stable=True)
several = several[:3]  # the first is the letter above
grid = [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16]
if dataset != "hangul":  # photographs are heavier: one of them, at every other radius
    several, grid = several[:1], grid[::2]
attacked, confidence = {}, {}
for name, attack in {"IFGSM": attacks.pgd, "noise": partial(attacks.noise, kind="sign")}.items():
    attack = partial(attack, scores, x[several], y[several])
    images = [attack(radius=float(r), generator=rng()) if r else x[several] for r in grid]
    attacked[name] = torch.stack(images)
    with torch.no_grad():
        found = scores(attacked[name].flatten(0, 1)).softmax(1)
    confidence[name] = found.unflatten(0, (len(grid), -1))

# %%
every = max(1, x.shape[-1] // 44)  # of photographs every fifth pixel, to keep the page light
interactive.attack_slider(
    x[several][..., ::every, ::every],
    grid,
    {name: images[..., ::every, ::every] for name, images in attacked.items()},
    confidence,
    y[several],
    [data.class_names[c] for c in data.unseen],
    symbol="ρ",
    title="An image under an attack of growing radius",
    alt="Two rows of a letter at radii from 0 to 16, one attacked by IFGSM and one with noise: the paper turns mottled from 4 on, the letter stays legible.",
)

# %% [markdown]
# ## Standard and generalised
#
# The same attack with all classes as candidates: more columns, more boundaries, and most of them belong to classes that the model prefers anyway. Where do unseen images go?

# %%
everything = data.candidates
is_seen = torch.isin(everything, data.seen)
y_all = torch.searchsorted(everything, data.labels[chosen])
general = score_function(everything, scale)


def fate(x):
    """Where unseen images go in the generalised task, in per cent."""
    with torch.no_grad():
        named = general(x).argmax(1)
    to_seen, exact = is_seen[named], named == y_all
    parts = {"right": exact, "another unseen class": ~to_seen & ~exact, "a seen class": to_seen}
    return {key: 100 * part.double().mean().item() for key, part in parts.items()}


fates = {"no attack": fate(x), "noise (signs)": fate(moved["noise (signs)"])}
fates["made for unseen classes"] = fate(attacks.pgd(scores, x, y, radius=radius))
general_attack = attacks.pgd(general, x, y_all, radius=radius)
fates["made for all classes"] = fate(general_attack)
plots.table(pd.DataFrame(fates).T.rename_axis("unseen images, IFGSM (%)"), precision=0)

# %%
for name, columns, labels in (("unseen", scores, y), ("all", general, y_all)):
    before, after = accuracy(columns, x, labels), accuracy(columns, general_attack, labels)
    print(f"recognised among {name} classes: {before:.0f} %, attacked in the generalised task {after:.0f} %")

# %% [markdown]
# Many unseen images go to seen classes without any attack: that is the bias of [Compatibility models](11_compatibility_models). An attack that may name all classes sends still more of them there, as those boundaries are near. A part of what it does is then
# no loss of knowledge about the letter but a shift of the balance between seen and unseen, which calibrated stacking could move back. How large a part? Take the same attacked images and let only unseen classes compete: some come back, but few.
# [Robust evaluation](24_robust_evaluation) attacks at every calibration.
#
# ## The scale of the scores
#
# We chose the scale by the cross-entropy of training images. The recogniser does not care; does the attacker?

# %%
factors = 10.0 ** np.arange(-2, 6)
by_scale = {"cross-entropy": [], "margin": []}
for factor in factors:
    scaled = score_function(data.unseen, float(factor))
    for name, loss in (("cross-entropy", "ce"), ("margin", "margin")):
        images = attacks.pgd(scaled, x[right], y[right], radius=radius, loss=loss)
        by_scale[name].append(accuracy(scaled, images, y[right]))

# %% mystnb={"image": {"alt": "Accuracy under IFGSM against the scale of the scores. With the margin a level line; with the cross-entropy a valley: less damage at small scales, and almost none at very large ones."}}
fig, axis = plt.subplots(figsize=(5.2, 3.2))
for (name, values), mark in zip(by_scale.items(), "o^", strict=True):
    axis.plot(factors, values, marker=mark, label=f"IFGSM on the {name}")
axis.axvline(scale, color="grey", lw=0.8)
axis.set(xscale="log", xlabel="scale of the scores (line: the chapter's)", ylabel="still recognised (%)", ylim=(-3, 103))
axis.legend()
plt.show()

# %% [markdown]
# Of the images that are recognised without attack: the margin does not depend on the scale. The cross-entropy does, twice. Where scores are small, its softmax is nearly uniform, and the slope pulls the true score below the *average* of all others instead of below the best. Where they are large, the
# softmax of a recognised image is 1 up to rounding, the loss is 0 and so is its slope: the attack stands still, and the model looks robust. That is *gradient masking* at its simplest, by nothing but a factor.
#
# Every recogniser in the comparisons of paper 2 has scores of another scale: cosines, distances, relation scores, logits of a softmax. A table of attacks on the cross-entropy compares those scales too. So
# this book attacks the margin as well, and reports, image by image, the worst. AutoAttack {cite}`croce2020reliable`, the outside judge of [Robust evaluation](24_robust_evaluation) and in `attacks.autoattack`, uses a margin divided by the spread of the scores, for this reason.
#
# ## The attacks side by side
#
# | attack | the attacker sees | norm | kind | needs for one image | weak where |
# | --- | --- | --- | --- | --- | --- |
# | noise | nothing | any | radius | nothing | always: it is the floor |
# | FGSM | gradients | ℓ∞ (ℓ2) | radius | 1 gradient | the loss bends |
# | IFGSM, PGD | gradients | ℓ∞, ℓ2 | radius | $N$ gradients, times restarts | the loss is flat; few steps |
# | WRM | gradients | ℓ2 penalty | penalty, here within a radius | $N$ gradients | the cross-entropy saturates |
# | DeepFool | gradients of several scores | ℓ2, ℓ∞ | minimal | a few steps of 9 gradients | it stops at the first boundary |
# | CW | gradients | ℓ2 | minimal | rounds × steps gradients | pixels at bounds; few steps |
# | ZOO | scores | ℓ2 | minimal | rounds × steps × (1 + 2 × pixels a step) queries | many pixels; scores that are rounded |
#
# ## Differences from the paper
#
# 1. **Radius.** DeepFool, CW and ZOO have none in paper 2. Here their norms are reported and set on the same axis; with `radius=` the result is projected on the ball.
# 2. **Iterations.** Paper 2 gives DeepFool, CW and WRM nine. DeepFool and CW have more here, for the reason above; nine can be asked for.
# 3. **WRM.** The meaning of its $\rho$, its $\gamma$ and its norm are our reading.
# 4. **ZOO.** The paper gives no number of queries. Ours has no tanh, as in the Adversarial Robustness Toolbox, draws pixels uniformly, and leaves out hierarchical attacks and importance sampling, which only large pictures need.
# 5. **CW** begins its search for $c$ at the value of a linear boundary.
# 6. **Losses.** The paper attacks the cross-entropy; we attack the margin too.
# 7. **Signs.** Eq. 3 lacks its minus sign: as printed, ascent would make the recognition better.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-atk-step
# ```
# Does IFGSM converge? Double its steps, and double the length of its steps, at the chapter's radius. When would you stop?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-atk-step
# :class: dropdown
# ```

# %%
rows = {}
for steps in (1, 3, 9, 18):
    for factor in (1.25, 2.5):
        images = attacks.pgd(scores, x, y, radius=radius, steps=steps, step=factor * radius / steps, loss="margin")
        with torch.no_grad():
            rows[steps, factor] = {
                "recognised (%)": accuracy(scores, images, y),
                "mean margin": margin(scores(images), y).mean().item(),
            }
frame = pd.DataFrame(rows).T.rename_axis(["steps", "length of all, in radii"])
plots.table(frame.reset_index(), index=False, precision=2, formats={"steps": "{:.0f}"})

# %% [markdown]
# One step is too few; from three on, the accuracy does not move any more, while the margin still grows a little: the attack has long won. Longer steps reach the surface sooner and help a little. Stop when doubling the steps changes the accuracy by less than the standard error of
# so few images, $\sqrt{p(1 - p)/n}$. A defended model needs more steps, and [The gradient of a maximum](22_danskin) shows what too few of them do to training.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-atk-transfer
# ```
# A *transfer* attack needs neither gradients nor queries of its victim: make IFGSM images for one recogniser and show them to another. Take ESZSL with other ridge weights on the same backbone as the victim, then swap the roles. Is it as strong as the attack on the victim itself? What if the backbones differed?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-atk-transfer
# :class: dropdown
# ```

# %%
victim_model = ESZSL(gamma=100 * best["gamma"], lam=best["lam"]).fit(data)
columns = victim_model.V.float() @ data.semantics[data.unseen].T


def victim(x):
    return scale * net.features(x / 255) @ columns


made = {"itself": attacks.pgd(victim, x, y, radius=radius, loss="margin")}
made["the other"] = attacks.pgd(scores, x, y, radius=radius, loss="margin")
print(f"no attack: {accuracy(victim, x, y):.0f} %")
for name, images in made.items():
    print(f"made for {name}: {accuracy(victim, images, y):.0f} %")

# %% [markdown]
# About half as strong: both read the same features, which the attack changes, but by other directions of them. With different backbones still less carries over. An attack that transfers *better* than one on the model itself is a sign of masked gradients.
# The victim is also harder to attack to begin with: its larger ridge weight makes $V$ smaller and smoother. Regularisation is a weak defence, and belongs to the baseline of a strong one.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-atk-dual
# Show {eq}`eq-atk-fgsm` for any norm: the largest gain of a linear loss over a ball is $\rho$ times the dual norm of the slope. How does it follow that, for linear scores of two classes, an image survives $\ell_\infty$ attacks of radius $\rho$ exactly if its margin is at most $-\rho\lVert\nabla m\rVert_1$?
# ```
#
# ```{solution} ex-atk-dual
# :class: dropdown
# The dual norm is *defined* as $\lVert g\rVert_\star = \max_{\lVert\delta\rVert\le 1} g^\top\delta$; scale by $\rho$. By Hölder's inequality it is the 1-norm for $\ell_\infty$ and the 2-norm for $\ell_2$. A linear margin at $x + \delta$ is $m + \nabla m^\top\delta\le m + \rho\lVert\nabla m\rVert_1$, and the
# bound is reached. It stays at most 0, and the image recognised, exactly if $m\le-\rho\lVert\nabla m\rVert_1$.
# ```
#
# ```{exercise}
# :label: ex-atk-noise
# Why does noise with signs $\pm\rho$ in every pixel, as long as FGSM's step, do so little? Compare the gain $g^\top\delta$ of both for $D$ pixels whose slopes are alike in size.
# ```
#
# ```{solution} ex-atk-noise
# :class: dropdown
# For FGSM $g^\top\delta = \rho\lVert g\rVert_1 = \rho D a$ with $\lvert g_i\rvert = a$. For random signs it has mean 0 and standard deviation $\rho\lVert g\rVert_2 = \rho\sqrt D\,a$. The ratio is $\sqrt D$: 32 for the pixels of hangul, 388 for a photograph of $224\times224$. Noise must be that much
# larger to do the same by chance. This is also why dimension makes networks fragile.
# ```
#
# ```{exercise-start}
# :label: ex-atk-steps
# ```
# Write the attack of many steps,
#
# $$
# x'\leftarrow\mathrm{Proj}\{x' + \varepsilon\operatorname{sign}\nabla_x L(x')\},
# $$
#
# from $x' = x$, where Proj brings a pixel back into $[x-\rho, x+\rho]$ and into $[0, 255]$. On a linear loss, steps of more than $\rho$ in all reach the best corner, cut to the range of
# pixels; on others the check asks the library.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-atk-steps
# :class: dropdown
# ```
# The projection is around the image, not around the last step.

# %% tags=["exercise"]
import torch


def attack_in_steps(loss, x, radius, steps, step):
    """Attacked images [n, ...]. loss: images -> losses [n]; the rest in pixels."""
    ### BEGIN SOLUTION
    moved = x
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(moved).sum(), moved)
        moved = moved.detach() + step * slope.sign()
        moved = moved.clamp(x - radius, x + radius).clamp(0, 255)
    return moved
    ### END SOLUTION


# %% tags=["check"]
from zsl_lib import attacks
from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
pictures = 255 * torch.rand(5, 12, generator=g, dtype=torch.float64)
pictures[0, :4] = 2.0  # nearly black
w = torch.randn(12, generator=g, dtype=torch.float64)
yours = attack_in_steps(lambda x: x @ w, pictures, 8.0, 3, 4.0)
compare("a linear loss", yours, (pictures + 8 * w.sign()).clamp(0, 255))
first, last = (torch.randn(n, generator=g, dtype=torch.float64) for n in ((12, 9), (9, 3)))
names = torch.tensor([0, 1, 2, 0, 1])


def network(x):
    return (x / 50 @ first).tanh() @ last


def cross_entropy(x):
    return torch.nn.functional.cross_entropy(network(x), names, reduction="none")


yours = attack_in_steps(cross_entropy, pictures, 8.0, 9, 1.25 * 8 / 9)
expected = attacks.pgd(network, pictures, names, radius=8.0, steps=9)
compare("the library's attack on a network", yours, expected)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# An attack maximises a loss in a ball, or minimises a norm beyond a boundary. It needs a score function, from pixels to the candidate classes, and nothing else. Undefended zero-shot recognition breaks at radii that one hardly sees, in the generalised task mostly towards seen classes.
# How an attack fails tells as much as how it succeeds: by the scale of the scores, by saturated pixels, by too few steps. [The gradient of a maximum](22_danskin) and
# [Adversarial training](23_adversarial_training) put the attack into the training.
