# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adversarial training
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - write paper 2's Eq. 4 and Algorithm 1 in a dozen lines, with the sign that Eq. 3 lacks, and say what each line costs;
# - say which of the paper's settings are stated twice or not at all, and what was chosen here;
# - train a relation network against images that are moved while it learns, and judge it beside controls of the same cost;
# - read a loss landscape, and tell what training did to the gradient of the image.
#
# You need [the gradient of a maximum](22_danskin), and [the relation network](20_relation_network).
# :::
#
# **The question.** Images of *unseen* classes will be attacked, but only seen classes can be trained on. Does training against attacks on seen classes protect unseen ones? How much of the
# gain is owed to the attack, and not to more computing or to noise?

# %% tags=["parameters"]
dataset = "hangul"  # data set with images: hangul, CUB, CUB100, or a folder
semantics = "att"  # class descriptions: att (attributes) or sent (sentences; CUB, CUB100)
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, or data/
image_size = 224  # side of images read from files, in pixels; 32 or larger
seed = 0  # seed of weights, batches, radii and the choice of images; 0 or larger
per_class = 6  # training images of each seen class in the arms; 2 or larger (0: all)
warm_per_class = 12  # the same before the arms part; 2 or larger (0: all)
tested = 2  # attacked test images of each unseen class; 1 or larger (0: all)
warm_epochs = 6  # clean passes before the arms part; 1 or larger
adversarial_epochs = 1  # passes of Algorithm 1 in each arm; controls get as many as cost the same; 1 or larger
batch_size = 24  # images a step in the arms; the paper does not say; 2 or larger
lr = 7e-4  # rate of Adam in the arms; 1e-5 in the paper; positive
backbone_lr = 1.0  # what the backbone's rate is multiplied by in the arms; 1 in the paper; positive
steps = 3  # N; 3 in §4.3 of the paper, 9 in §5.4; 1 or larger
radii = [0.0, 2.0, 4.0, 8.0]  # of the attacks on test images, pixels of [0, 255]; 0 or larger, 0 among them
attack_steps = 5  # of those attacks; 1 or larger
device = "auto"  # where gradients are taken: auto (CUDA if there is one), cpu or cuda

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from zsl_lib import attacks, paper, plots
from zsl_lib.data import load
from zsl_lib.learn.adversarial import AdversarialConfig, AdversarialLearner, adversarial_loss, draw_radius
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.models.backbone import backbone
from zsl_lib.robust import per_class_share

plots.style()
rng = torch.Generator().manual_seed(seed)


def some_of_each(labels, index, n):
    """At most n of each class's examples at index; all if n is 0."""
    shuffled = index[torch.randperm(len(index), generator=rng)]
    parts = [shuffled[labels[shuffled] == c][: n or None] for c in labels[index].unique()]
    return torch.cat(parts)


def with_few(data, n):
    """The data set with n training images a class."""
    index = some_of_each(data.labels, data.trainval, n)
    return replace(data, trainval=index, train=index[:0], val=index[:0])


data = load(dataset, root or None, semantics=semantics, images=True, image_size=image_size)
data = replace(data, features=None)
many, data = with_few(data, warm_per_class), with_few(data, per_class)
data

# %% [markdown]
# Images, no features: whoever attacks starts at the pixels. A part of the training images is enough here; the records of [the page of claims](93_paper2_claims) use all.
#
# ## Eq. 4, with its sign
#
# > **Paper 2, Eq. 3 and 4** (§3.2): with $q_{ij} = 1$ where $y_i$ is class $j$,
# > $L = \sum_j q_{ij}\log p(c_j\mid x_i)$, and the weights minimise $\sum_i \alpha\,L(x_i) + (1-\alpha)\max_{x_i'\in B^\rho_\infty(x_i)} L(x_i')$.
#
# As printed, $L$ is the log-likelihood itself. Minimising it unlearns, and the inner maximum looks for the image that is *easiest* to recognise. With a minus sign both make sense, and that is what we use:
#
# $$
# L(x) = -\log p(c_y\mid x),\qquad
# \min\;\alpha\,L(x) + (1-\alpha)\max_{\lVert x'-x\rVert_\infty\le\rho} L(x') .
# $$ (eq-adv-4)
#
# The Baseline ($\alpha = 1$) first, from the backbone that comes with the data set. Before the arms part, the backbone stays as it is: its features are computed once, and a pass over them costs
# next to nothing.

# %%
name = "hangul" if dataset == "hangul" else "lite0"
options = {"seed": seed, "device": device, "backbone": backbone(name)}
base = RelationLearner(RelationConfig(epochs=warm_epochs, freeze=True), **options)
base.fit(many, progress=False)
base.net.requires_grad_(True)  # from here on the backbone learns as well
probe = some_of_each(data.labels, data.test_unseen, tested)
probe_x = data.images[probe].float().to(base.device)
probe_y = torch.searchsorted(data.unseen, data.labels[probe]).to(base.device)
print(f"{len(probe)} test images of {len(data.unseen)} unseen classes")


# %%
# NBVAL_CHECK_OUTPUT
def likelihood(learner, x, y):
    """Mean log-probability of the right class among the unseen ones."""
    scores = learner.score_function(data.semantics[data.unseen])(x)
    return -F.cross_entropy(scores, y)


x, y = probe_x[:40].clone().requires_grad_(), probe_y[:40]
before = likelihood(base, x, y)
(slope,) = torch.autograd.grad(before, x)
with torch.no_grad():
    as_printed = likelihood(base, (x + 2 * slope.sign()).clamp(0, 255), y)
    with_minus = likelihood(base, (x - 2 * slope.sign()).clamp(0, 255), y)
print("maximising L as printed helps the recogniser:", bool(as_printed > before))
print("maximising it with the minus sign hurts:", bool(with_minus < before))


# %% [markdown]
# ## Algorithm 1, line by line
#
# > **Paper 2, Algorithm 1**: draw an image; draw $\rho\in[0, 4]$ from a truncated normal $N(0, 2)$; $\varepsilon = 1.25\rho/N$; start at $x' = x$; $N$ times
# > $x'\leftarrow\operatorname{Proj}\{x' + \varepsilon\operatorname{sign}\nabla_x L(x')\}$; update the weights by Adam.

# %%
def algorithm_1(loss, x, rho, alpha, steps):
    """Eq. 4 at the x' of Algorithm 1; loss maps images to their mean loss."""
    moved = x
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(moved), moved)
        moved = moved + 1.25 * rho / steps * slope.sign()
        moved = moved.clamp(x - rho, x + rho).clamp(0, 255).detach()
    return alpha * loss(x) + (1 - alpha) * loss(moved)


# %% [markdown]
# The library's `adversarial_loss` gives the same number and the same gradient. It is told the model as well, for two reasons that follow.

# %%
# NBVAL_CHECK_OUTPUT
seen = data.semantics[data.seen].to(base.device)
first = data.trainval[:32]
x = data.images[first].float().to(base.device)
y = torch.searchsorted(data.seen, data.labels[first]).to(base.device)


def loss(x):
    return F.cross_entropy(base.net(x, seen), y)


def slopes(value):
    """The gradient in all weights, as one vector."""
    weights = list(base.net.parameters())
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


ours = algorithm_1(loss, x, 4.0, 0.5, steps)
library = adversarial_loss(loss, x, model=base.net, radius=4.0, alpha=0.5, steps=steps)
print("same value:", torch.allclose(ours, library, rtol=1e-4))
a, b = slopes(ours), slopes(library)
print("same gradient:", bool((a - b).norm() < 1e-3 * a.norm()))

# %% [markdown]
# **What it costs.** Count a forward pass as 1, the gradient in the activations as 1, that in the weights as 1. Clean training costs 3. A step of the search needs a forward pass and the gradient in
# the activations, 2, and the attacked image another 3: $6 + 2N$, or 12 for $N = 3$. But the search starts at the clean image, whose gradient in the activations the clean term computes anyway.
# With that reused it is $4 + 2N$, or 10. One step from a random point ("fast" {cite}`wong2020fast`) costs 8 with the clean term and 5 without. PyTorch can count the multiplications:

# %%
# NBVAL_CHECK_OUTPUT
kinds = {
    "clean (α = 1)": {"alpha": 1.0},
    "Algorithm 1, N = 3": {"scheme": "plain"},
    "first gradient reused": {"scheme": "reuse"},
    "α = 0": {"alpha": 0.0},
    "fast": {"scheme": "fast"},
    "random signs": {"scheme": "noise"},
}
draws = torch.Generator(base.device).manual_seed(seed)


def counted(x):
    return loss(1 * x)  # the counter cannot watch a leaf enter a module


with FlopCounterMode(display=False) as forward, torch.no_grad():
    loss(x)
for kind, told in kinds.items():
    with FlopCounterMode(display=False) as counter:
        adversarial_loss(counted, x, model=base.net, radius=4.0, generator=draws, **told).backward()
    print(f"{kind:22}", round(counter.get_total_flops() / forward.get_total_flops()), "units")
base.net.zero_grad()

# %% [markdown]
# (The relation network's own part is small beside the backbone's. For convolutions in groups, such as EfficientNet's, PyTorch overcounts the gradient in the weights, and the ratios come out wrong.) Paper 2's §5.4 calls the overhead negligible; by the count it is a factor of 3.3 to 4 over clean training. Its own Table 10 says so too:

# %%
printed = paper.iteration_seconds()
printed.index = [f"{name}, {attack}s" for name, attack in printed.index]
parts = ["forward", "search", "forward_attacked", "backward"]
printed["sum of parts"] = printed[parts].sum(axis=1)
printed["total / clean"] = printed["total"] / (printed["forward"] + printed["backward"] / 2)
printed["search / forward"] = printed["search"] / printed["forward"]
printed = printed.rename(columns={"forward": "forward (clean)", "forward_attacked": "forward (attacked)"})
plots.table(printed, formats=dict.fromkeys(printed.columns[:6], "{:.0f}"))

# %% [markdown]
# - The parts do not sum to the totals, in any row.
# - *Total / clean* is about five for images, with half the backward time taken for the clean term's.
# - A step costs two forward passes, so $N = 3$ would take 6 forward times in the search and $N = 9$ would take 18. The search takes about ten. Neither the 3 of §4.3 nor the 9 of §5.4 fits.
#
# What the parts and all schemes take here is on [the page on speed](91_speed).
#
# **BatchNorm.** In training mode a layer normalises by its batch and remembers a running mean of what it saw. The search must maximise the function that is trained, so it stays in training mode; but the
# images of its steps are not training data, and must not be remembered. `adversarial_loss` sees to that; `algorithm_1` above does not, and in training mode would shift what the
# network uses at test time.
#
# **The radius.** "$N(0, 2)$ on $[0, 4]$": variance or standard deviation? Algorithm 2 of the same paper writes $N(\mu = 0, \sigma = 27)$ on $[0, 54]$, and the source of both, Kurakin et al.
# {cite}`kurakin2017scale`, writes $\sigma = 8$ on $[0, 16]$. So 2 is the standard deviation, half the largest radius.

# %% mystnb={"image": {"alt": "Histogram of drawn radii from 0 to 4, falling slowly from 0 to 4, on the curve of standard deviation 2; the curve of variance 2 falls faster."}}
drawn = draw_radius(4.0, rng, 20_000)
fig, ax = plt.subplots(figsize=(5, 3))
ax.hist(drawn, 40, density=True, alpha=0.4)
axis = np.linspace(0, 4, 200)
for sd, label in ((2.0, "standard deviation 2"), (2**0.5, "variance 2")):
    ax.plot(axis, stats.truncnorm(0, 4 / sd, scale=sd).pdf(axis), label=label)
ax.set(xlabel="radius ρ (pixels of [0, 255])", ylabel="density")
ax.legend()
plt.show()

# %%
# NBVAL_CHECK_OUTPUT
law = stats.truncnorm(0, 2, scale=2)
print("mean as in theory:", bool(abs(drawn.mean() - law.mean()) < 0.03))
print(f"theory: mean {law.mean():.2f}; {100 * law.cdf(1):.0f} % of radii are below 1")

# %% [markdown]
# Most training images are hardly moved at all.
#
# ## Arms that part from one network
#
# All arms start from the same clean network and see the same batches; they differ in one thing each, and cost the same:
#
# | arm | what it is | units a pass |
# | --- | --- | --- |
# | more clean epochs | $\alpha = 1$: the control for computing | 3 |
# | noise | random signs in place of the search, $\alpha = \frac12$: the control for moving images at all | 6 |
# | ATZSL | Algorithm 1, $\alpha = \frac12$, $\rho\le 4$: the paper's | 10 |
# | wider radii | the same with $\rho\le 32$ | 10 |
# | Baseline2 | $\alpha = 0$: attacked images alone | 9 |
# | fast | $\alpha = \frac12$, one step from a random point | 8 |
# | free | each batch twice, weights and perturbation moved by one gradient {cite}`shafahi2019adversarial` | 6 |

# %%
start = {key: value.clone() for key, value in base.net.state_dict().items()}


class Continued(AdversarialLearner):
    """Goes on from the clean network."""

    def _start(self, data):
        super()._start(data)
        self.net.load_state_dict(start)


arms = {
    "more clean epochs": ({"alpha": 1.0}, 3),
    "noise, ρ ≤ 32": ({"scheme": "noise", "radius": 32.0}, 6),
    "ATZSL, ρ ≤ 4": ({}, 10),
    "ATZSL, ρ ≤ 32": ({"radius": 32.0}, 10),
    "Baseline2, ρ ≤ 32": ({"radius": 32.0, "alpha": 0.0}, 9),
    "fast, ρ ≤ 32": ({"radius": 32.0, "scheme": "fast"}, 8),
    "free, ρ ≤ 32": ({"radius": 32.0, "scheme": "free", "alpha": 0.0, "replays": 2}, 6),
}
learners = {"start": base}
for arm, (told, units) in arms.items():
    passes = max(1, round((4 + 2 * steps) * adversarial_epochs / units))
    told |= {"lr": lr, "backbone_lr": backbone_lr, "batch_size": batch_size}
    config = AdversarialConfig(epochs=passes, steps=steps, **told)
    learners[arm] = Continued(config, **options).fit(data, progress=False)


# %% [markdown]
# The judge: sign ascent on images of unseen classes, end to end from the pixels, against all unseen classes (T1). It knows the network. An image that has fallen at a radius has fallen at all larger ones, whose balls contain
# it, so only the others are attacked again. It is one attack with few steps; [the next chapter](24_robust_evaluation) has all of them, and the checks.

# %%
def judged(learner):
    """T1 at each of the radii."""
    scores = learner.score_function(data.semantics[data.unseen])
    left, row = torch.arange(len(probe), device=probe_y.device), {}
    for rho in sorted(radii):
        x, y = probe_x[left], probe_y[left]
        if rho and len(left):
            x = attacks.pgd(scores, x, y, radius=rho, steps=attack_steps)
        with torch.no_grad():
            left = left[scores(x).argmax(1) == y]
        row[rho] = per_class_share(probe_y.cpu(), torch.isin(torch.arange(len(probe)), left.cpu()))
    return row


found = {arm: judged(learner) for arm, learner in learners.items()}  # T1 by arm and radius
rows = {
    arm: {"epochs": len(learners[arm].history)} | {f"ρ = {rho:g}": t1 for rho, t1 in row.items()}
    for arm, row in found.items()
}
table = pd.DataFrame(rows).T
plots.table(table, formats={"epochs": "{:.0f}"})

# %%
error = 100 * (0.25 / len(probe)) ** 0.5
print(f"standard error of a number near 50 %: {error:.1f} points")

# %%
# NBVAL_CHECK_OUTPUT
widest = table[f"ρ = {max(radii):g}"]
controls = widest[["more clean epochs", "noise, ρ ≤ 32"]].max()
wide = widest[["ATZSL, ρ ≤ 32", "Baseline2, ρ ≤ 32"]].min()
print("widest attack: wide radii beat both controls:", bool(wide > controls + error))

# %% mystnb={"image": {"alt": "T1 against the attack's radius after more clean epochs, noise, the paper's radii and wider ones; all fall steeply, the one trained with wide radii the least."}}
fig, ax = plt.subplots(figsize=(6, 3.5))
for arm in ("more clean epochs", "noise, ρ ≤ 32", "ATZSL, ρ ≤ 4", "ATZSL, ρ ≤ 32"):
    ax.plot(list(found[arm]), list(found[arm].values()), marker="o", ms=4, label=arm)
ax.axhline(100 / len(data.unseen), color="grey", ls=":", label="chance")
ax.set(xlabel="radius of the attack (pixels of [0, 255])", ylabel="T1 (%)", ylim=0)
ax.legend(title="trained with")
plt.show()

# %% mystnb={"image": {"alt": "T1 under attack against clean T1, one labelled point an arm: arms with wide radii lie higher."}}
fig, ax = plt.subplots(figsize=(7, 4))
attack = f"ρ = {max(radii):g}"
for i, (arm, row) in enumerate(table.iterrows()):
    ax.plot(row["ρ = 0"], row[attack], "o")
    beside = {"xytext": (4, 4 - 14 * (i % 2)), "textcoords": "offset points"}
    ax.annotate(arm, (row["ρ = 0"], row[attack]), **beside, fontsize=8)
ax.set(xlabel="T1, clean (%)", ylabel=f"T1, attacked with {attack} (%)")
ax.margins(x=0.25)
plt.show()


# %% [markdown]
# - **Robustness passes on to unseen classes.** Only seen classes were attacked in training, and unseen ones are recognised two or three times as often under the widest attack as after the controls.
# - **It is owed to the search.** More clean epochs raise the attacked T1 little, and so does noise of the same size.
# - **The paper's radii need a longer training.** With $\rho\le 4$, of which most draws are far smaller, the arm is a few points above the controls at most, about the error of the comparison, and wider radii do more in the same time.
#   That is so after one pass over few images. From all training images, with settings that were chosen on validation, the same radii make a large difference: [paper 2, claim by claim](93_paper2_claims).
# - **The price is clean accuracy.** All arms with wide radii recognise fewer clean images than more clean epochs do. Does the clean term pay a part of the price, as §5.3 of the paper argues? ATZSL and $\alpha = 0$ differ by less than
#   their error here, in either direction from machine to machine: that takes [seeds](93_paper2_claims).
# - **One step from a random point does about as well** as three from the clean image, for less; so does the free scheme, for less still.
#
# One seed, few images, a weak attack: differences of three standard errors count here, smaller ones do not.
#
# ## What training did to the loss around an image
#
# Take a test image among the easiest for all of them, of median loss under attack after clean training, and two directions: the signs of this learner's gradient, and random signs. The loss is drawn over the plane of both.

# %%
def loss_at(learner, x, y):
    return F.cross_entropy(learner.score_function(data.semantics[data.unseen])(x), y, reduction="none")


def gradient_at(learner, x, y):
    """Gradient of each image's loss, as x."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss_at(learner, x, y).sum(), x)[0]


def plane(learner, x, y, up, reach=16.0, points=17):
    """Loss [points, points] on x + a sign(gradient) + b up, for a, b within reach."""
    along = gradient_at(learner, x, y).sign()
    axis = torch.linspace(-reach, reach, points, device=x.device)
    moves = torch.cartesian_prod(axis, axis)
    moved = x + moves[:, :1, None, None] * along + moves[:, 1:, None, None] * up
    with torch.no_grad():
        found = [loss_at(learner, part.clamp(0, 255), y.expand(len(part))) for part in moved.split(64)]
    return axis.cpu(), torch.cat(found).view(points, points).T.cpu()


# %% mystnb={"image": {"alt": "Three filled contour maps of the loss around one image, horizontal along the gradient's signs, vertical along random signs: it climbs to the right in all, steeply after clean training and with small radii, slowly with wide ones, and changes less vertically."}}
compared = ["more clean epochs", "ATZSL, ρ ≤ 4", "ATZSL, ρ ≤ 32"]
plain = learners[compared[0]]
here = torch.stack([loss_at(learners[arm], probe_x, probe_y) for arm in compared]).amax(0)
there = loss_at(plain, (probe_x + 8 * gradient_at(plain, probe_x, probe_y).sign()).clamp(0, 255), probe_y)
easy = here.argsort()[: max(1, len(here) // 5)]  # for all of them
one = int(easy[there[easy].argsort()[len(easy) // 2]])  # as hard to attack, after clean training, as half of these
x, y = probe_x[one : one + 1], probe_y[one : one + 1]
up = (2.0 * (torch.rand(x.shape, generator=rng) < 0.5) - 1).to(x.device)
maps = {arm: plane(learners[arm], x, y, up) for arm in compared}
top = max(float(values.max()) for _, values in maps.values())
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True)
for ax, (arm, (axis, values)) in zip(axes, maps.items(), strict=True):
    shade = ax.contourf(axis, axis, values, levels=np.linspace(0, top, 15), cmap="cividis")
    ax.plot(0, 0, "w+", ms=8)
    ax.set(title=arm, xlabel="along the gradient's signs")
axes[0].set(ylabel="along random signs")
fig.colorbar(shade, ax=axes, label="loss")
plt.show()


# %% [markdown]
# One image may mislead. Over all test images, at $\rho = 4$: by how much one step of sign ascent raises the loss (*one step*), what a straight line would have given, the gradient times the step (*line*), and what random
# signs do (*random*); and the shape of the gradient: the share of $\lvert\nabla L\rvert$ on pixels brighter than the image's mean, and the share of pixels that it would have if it were spread evenly over as many,
# $\lVert\nabla L\rVert_1^2/(n\lVert\nabla L\rVert_2^2)$ for $n$ pixels (*spread*): 100 % if all are alike, less the sparser it is.

# %%
def shape(learner, rho=4.0):
    """Medians over the test images."""
    g = gradient_at(learner, probe_x, probe_y)
    signs = (2.0 * (torch.rand(g.shape, generator=rng) < 0.5) - 1).to(g.device)
    moved = {k: (probe_x + rho * v).clamp(0, 255) for k, v in {"one step": g.sign(), "random": signs}.items()}
    with torch.no_grad():
        here = loss_at(learner, probe_x, probe_y)
        row = {k: loss_at(learner, x, probe_y) - here for k, x in moved.items()}
    row["line"] = (g * (moved["one step"] - probe_x)).flatten(1).sum(1)
    size = g.abs().flatten(1)
    bright = (probe_x > probe_x.mean((1, 2, 3), keepdim=True)).flatten(1)
    row["on bright pixels (%)"] = 100 * (size * bright).sum(1) / size.sum(1)
    row["spread (%)"] = 100 * size.sum(1) ** 2 / (size.shape[1] * size.square().sum(1))
    return {k: v.median().item() for k, v in row.items()}


shapes = pd.DataFrame({arm: shape(learner) for arm, learner in learners.items()}).T
plots.table(shapes[["one step", "line", "random", "on bright pixels (%)", "spread (%)"]], precision=2)

# %% [markdown]
# - Random signs of the same size change nothing, before or after: the danger is in a direction that chance never finds. That is why the noise arm learns nothing about it.
# - Training with wide radii makes the gradient a few times smaller, brings it to the strokes, and makes it sparser. After clean training it is spread over the background, where no ink is. This is a sight of its
#   own: what fools the robust network is a change of the letter.
# - The step gives about what the line promises, for every arm. So the gain is no hidden gradient: had training bent the loss around the image, as in [the failure of one-step training](22_danskin), the line
#   would promise much and the step give little.
#
# ## Differences from the paper
#
# 1. The loss has its minus sign. As printed, Eq. 4 with Eq. 3 would do the opposite of what it is for.
# 2. $N = 3$, as in §4.3; §5.4 says 9. Neither fits Table 10, whose parts do not sum to its totals either.
# 3. "$N(0, 2)$" has 2 as its standard deviation. One $\rho$ serves a batch; the algorithm is written for one image at a time.
# 4. The first step's gradient comes from the clean term. Same result, ten units for twelve.
# 5. The search runs in the mode that is trained, and BatchNorm remembers nothing of it. The paper does not say.
# 6. $x'$ stays within [0, 255]; the paper projects on the ball alone.
# 7. Training goes on from a clean network here, for a pass or a few over few images, at a rate far above the paper's; the paper trains from the start for 400 epochs. What this can show is which way each arm moves, not where it
#    ends: the records of [the page of claims](93_paper2_claims) are for that.
# 8. DEM-adv and LDF-adv train through the same function (`AdversarialDEM`, `AdversarialLDF`). With an image network that learns too, DEM's squared distance is least when all images and all classes meet in
#    one point; `AdversarialDEM` minimises the cross-entropy of DEM's scores instead, and has the other as an option.
# 9. Baseline3 (the product, `combine="product"`) has $\alpha = 1$ in the paper, so it compares two clean networks, and cannot tell whether concatenation is more robust *under adversarial training*.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-adv-radius
# ```
# Had 2 been the variance, how many radii would be below 1, and what would be their mean? Which of both makes training stronger?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-adv-radius
# :class: dropdown
# ```

# %%
for sd, label in ((2.0, "standard deviation"), (2**0.5, "variance")):
    law = stats.truncnorm(0, 4 / sd, scale=sd)
    print(f"2 as {label}: mean {law.mean():.2f}, {100 * law.cdf(1):.0f} % below 1")

# %% [markdown]
# The standard deviation does, by a little.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-adv-batchnorm
# ```
# Put a network into training mode and compare what BatchNorm remembers after one call of `algorithm_1` and after one of `adversarial_loss`. How many batches has it counted?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-adv-batchnorm
# :class: dropdown
# ```

# %%
# NBVAL_CHECK_OUTPUT
kept = {key: value.clone() for key, value in base.net.state_dict().items()}
x, y = data.images[first].float().to(base.device), torch.searchsorted(data.seen, data.labels[first]).to(base.device)
base.net.train()
counter = next(m for m in base.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
for what, call in {
    "algorithm_1": lambda: algorithm_1(loss, x, 4.0, 0.5, steps),
    "adversarial_loss": lambda: adversarial_loss(loss, x, model=base.net, radius=4.0, steps=steps),
}.items():
    before = int(counter.num_batches_tracked)
    call()
    print(f"{what}: {int(counter.num_batches_tracked) - before} batches remembered")
base.net.load_state_dict(kept)
_ = base.net.eval()

# %% [markdown]
# $N + 2$ and 2. With statistics of attacked images among its means a network is judged, at test time, by another function than the one that was trained.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-adv-cost
# For which $N$ does Algorithm 1 with reuse cost at most twice as much as clean training? What if $\alpha = 0$? Name a scheme of this chapter that costs exactly as much per update as clean training.
# ```
#
# ```{solution} ex-adv-cost
# :class: dropdown
# $4 + 2N\le 6$ only for $N = 1$, which is FGSM beside the clean term. With $\alpha = 0$ nothing is reused: $3 + 2N\le 6$ for $N = 1$ as well, at 5. The free scheme costs 3 a weight update: one backward pass gives the gradients of
# weights and image at once. Its perturbation lags by one update behind the weights.
# ```
#
# ```{exercise-start}
# :label: ex-adv-eq4
# ```
# Write Eq. 4 with a radius for each image, as Algorithm 1 draws them,
#
# $$
# \frac1n\sum_i\Bigl[\alpha\,L_i(x_i) + (1-\alpha)\max_{\lVert x'_i-x_i\rVert_\infty\le\rho_i}L_i(x'_i)\Bigr] ,
# $$
#
# the maximum by $N$ sign steps of $1.25\rho_i/N$, without the bounds of pixels. The result's gradient in the weights is that at a fixed $x'$. For linear scores the maximum is known.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-adv-eq4
# :class: dropdown
# ```
# Each image's gradient is its own, so that one sum serves all. The radii need an axis of their own to meet the pixels.

# %% tags=["exercise"]
import torch


def eq_4(losses, x, rho, alpha, steps):
    """A number. losses: images [n, D] -> [n]; rho: [n]."""
    ### BEGIN SOLUTION
    rho, moved = rho[:, None], x
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(losses(moved).sum(), moved)
        moved = moved + 1.25 * rho / steps * slope.sign()
        moved = moved.clamp(x - rho, x + rho).detach()
    return (alpha * losses(x) + (1 - alpha) * losses(moved)).mean()
    ### END SOLUTION


# %% tags=["check"]
from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
images = torch.randn(6, 4, generator=g, dtype=torch.float64)
signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
rho = torch.rand(6, generator=g, dtype=torch.float64)
w = torch.randn(4, generator=g, dtype=torch.float64, requires_grad=True)
softplus = torch.nn.functional.softplus


def logistic(x):
    return softplus(-signs * (x @ w))


yours = eq_4(logistic, images, rho, 0.25, 3)
worst = softplus(-signs * (images @ w) + rho * w.abs().sum())
expected = (0.25 * logistic(images) + 0.75 * worst).mean()
compare("Eq. 4 of linear scores", yours, expected)
slopes_of = [torch.autograd.grad(value, w)[0] for value in (yours, expected)]
compare("its gradient in the weights", *slopes_of)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# Algorithm 1 is a dozen lines: a minus sign, a radius, some steps of sign ascent, one update. It costs 3.3 times clean training once the clean gradient is reused. Trained on attacks on seen classes, a relation network resists attacks on unseen
# ones, which neither more epochs nor noise brings about; but the radii have to be wide enough for the data. The gradient of the image becomes smaller and moves onto what is drawn.
