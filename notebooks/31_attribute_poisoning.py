# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attribute poisoning
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - attack a zero-shot recogniser through its table of class descriptions, and leave every image alone;
# - keep two threats apart that paper 2 does not: a table for each image, and one table for all;
# - say what a radius means on a table of 0 and 1, and what the paper's sign step loses;
# - read a poisoned table: who is taken for whom, and which single lie does most harm;
# - poison a generative method, which meets the table before its classifier is trained.
#
# You need [Recognition](08_recognition) for ABP, [Compatibility models](11_compatibility_models) for DEM and [Attacks on images](21_attacks_on_images) for FGSM, IFGSM and WRM.
# :::
#
# **The question.** A zero-shot recogniser learns about an unseen class from one row of a table that somebody typed. How little must be changed in it?

# %% tags=["parameters"]
dataset = "hangul"  # data set: hangul, toy, CUB, AWA2, CUB100, or a folder
semantics = "att"  # class descriptions: att or sent
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, or data/
seed = 0  # seed of weights, of what is random in attacks and of the choice of images; 0 or larger
length = 0.0  # length of each row on the scale of rho, where the data set does not say, as for sentences; 0: as it says
points = 3.0  # the largest radius, in points of the scale for each attribute; 3 in the paper; above 0
images = 400  # test images of each kind; 1 or larger
few = 40  # the same where every unseen row moves for each image, which costs more; 1 or larger
steps = 9  # of IFGSM and WRM; 9 in the paper's tests; 1 or larger
epochs = 6  # passes of DEM and ABP over the training set; 1 or larger
hidden = 128  # hidden units of DEM and of ABP's generator; 1 or larger
samples = 100  # synthetic features a class; 1 or larger

# %%
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.decomposition import PCA

from zsl_lib import plots
from zsl_lib.attacks import prototypes
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.embedding.dem import DEM
from zsl_lib.errors import DataError
from zsl_lib.learn.methods import learner
from zsl_lib.metrics import per_class_accuracy
from zsl_lib.poison import GeneratorMean, PoisonEvaluation, becomes, table_scores

plots.style()
data = load(dataset, root or None, semantics=semantics).scaled()
dem = DEM(epochs=epochs, hidden=hidden, seed=seed, device="cpu").fit(data)
table, K = data.semantics, data.semantics.shape[1]
scale = prototypes.scale_to_length(table, length) if length else data.points
if scale is None:
    raise DataError(f"{dataset}, {semantics}: points", found="none", expected="a scale", hint="-p length 300")
data

# %% [markdown]
# ## Two threats
#
# Paper 2 {cite}`zhang2019atzsl` treats a prototype of an unseen class like a test image (§3.4): something that comes in at test time, and that can be attacked. The two are not the same: an image is used once, a prototype by everybody. The paper does not say whether its attacks make a table for each test image or one for all. That decides how strong they are, so here each number names its threat:
#
# | threat | per image | universal |
# | --- | --- | --- |
# | **what is changed** | rows of the table, anew for each test image | rows of the table, once |
# | **the loss** | of that image | the mean over all test images |
# | **who can do it** | somebody who sits between table and recogniser, and sees each query | whoever edits the file of attributes |
# | **by how much** | each row by $\lVert p'_c - p_c\rVert_2\le\rho$ | the same |
# | **what is known** | the recogniser, the test images, their classes | the same |
#
# Rows that move are those of the unseen classes unless we say otherwise. Training is over by then.
#
# ## What a radius is
#
# The paper's radii differ between its data sets, 9, 18, 27 and 18, 36, 54, on attributes from 0 to 100. Divide by $\sqrt K$, as its step does,
#
# $$
# \Delta = \sqrt{\rho^2/K}\;\mathrm{sign}\,\nabla_p L,\qquad \lVert\Delta\rVert_2 = \rho,
# $$ (eq-poi-step)
#
# and they are the same three:

# %%
# NBVAL_CHECK_OUTPUT
for name, attributes, radii in (("AWA2", 85, (9, 18, 27)), ("CUB", 312, (18, 36, 54))):
    print(f"{name:5}", ", ".join(f"{rho} is {rho / attributes**0.5:.2f} points an attribute" for rho in radii))

# %% [markdown]
# About one, two and three points of a hundred for each attribute. So we count radii in points, $\rho = \text{points}\cdot\sqrt K$. How far is that, compared with the distance from a class to the next?

# %%
stated = table * scale[:, None]
apart = torch.cdist(stated, stated).fill_diagonal_(torch.inf).amin(1)
radii = [points * K**0.5 * share for share in (1 / 3, 2 / 3, 1)]
print(f"nearest other class: {apart.min():.0f} to {apart.max():.0f}, median {apart.median():.0f}")
print("radii:", ", ".join(f"{rho:.1f}" for rho in radii))
print(f"share of classes whose next one the largest radius could reach: {100 * (apart <= radii[-1]).double().mean():.0f} %")


# %% [markdown]
# ## One step by hand
#
# DEM's score of a class is a function of its row. An attack needs no more: the scores of all test images as a function of the table, differentiable. One table for all of them:

# %%
def fgsm_by_hand(table, rows, x, y, rho):
    """A universal step: sqrt(rho² / K) along the sign of the mean loss's gradient; rho ``[m, 1]``, one a row."""
    p = table.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(dem.score_function(p)(x), y)
    (slope,) = torch.autograd.grad(loss, p)
    moved = table.clone()
    moved[rows] += (rho**2 / table.shape[1]) ** 0.5 * slope[rows].sign()
    return moved


x = data.features[data.test_unseen]
y = torch.searchsorted(data.unseen, data.labels[data.test_unseen])
unseen, rho = table[data.unseen], radii[-1]
rows = torch.arange(len(unseen))
by_hand = fgsm_by_hand(unseen, rows, x, y, rho / scale[data.unseen].float()[:, None])
options = {"threat": "universal", "which": rows, "radius": rho, "attribute_scale": scale[data.unseen]}
made = prototypes.fgsm(table_scores(dem, x, separable=True), unseen, y, **options)
print("the library's step is this one:", torch.allclose(made.tables, by_hand, atol=1e-5))
print(f"each row moves by {made.sizes.min():.2f} to {made.sizes.max():.2f}; rho is {rho:.2f}")

# %% [markdown]
# **What the sign loses.** In an $\ell_\infty$ ball the sign is the steepest direction, in an $\ell_2$ ball it is not. On a linear loss a step of length $\rho$ gains $\rho\lVert\nabla\rVert_2$ along the gradient
# and $\rho\lVert\nabla\rVert_1/\sqrt K$ along the sign. Their ratio, for the own row of each test image:

# %%
scores = table_scores(dem, x, separable=True)[0]
columns = y[: len(scores.x)]
own = unseen[columns][:, None].clone().requires_grad_()
(slope,) = torch.autograd.grad(scores(own).sum(), own)
ratio = slope.abs().sum(-1) / (K**0.5 * slope.norm(dim=-1))
print(f"gain of the sign over that of the gradient: {ratio.mean():.2f} on average (K = {K})")

# %% [markdown]
# ## How recognition falls
#
# T1 and H against the radius, under both threats. Random poison is the control: each row moves by the same $\rho$, in a random direction.

# %%
evaluation = PoisonEvaluation(dem, data, images=images, seed=seed, separable=True)
small = PoisonEvaluation(dem, data, images=few, seed=seed, separable=True)


def random_poison(*args, **kwargs):
    return prototypes.noise(*args, generator=torch.Generator().manual_seed(seed), **kwargs)


steep = partial(prototypes.ifgsm, direction="gradient", steps=steps)
attacks = {"random": random_poison, "FGSM": prototypes.fgsm, "IFGSM": partial(prototypes.ifgsm, steps=steps)}
attacks["IFGSM, gradient"] = steep
curves = {
    (threat, name, rho): (small if threat == "per_image" else evaluation)
    .run(attack, threat=threat, radius=rho, attribute_scale=scale)
    .accuracies
    for threat in ("per_image", "universal")
    for name, attack in attacks.items()
    for rho in radii
}
clean = {"per_image": small.run().accuracies, "universal": evaluation.run().accuracies}

# %% mystnb={"image": {"alt": "Four panels: T1 above, H below, a table for each image left, one table right, against the radius. Random poison hardly matters. Attacks per image fall to almost nothing, universal ones much more slowly."}}
fig, axes = plt.subplots(2, 2, figsize=(8, 5), sharex=True, sharey=True)
for column, threat in zip(axes.T, clean, strict=True):
    for ax, metric in zip(column, ("T1", "H"), strict=True):
        before = getattr(clean[threat], metric)
        for name, marker in zip(attacks, "xsov", strict=True):
            found = [before] + [getattr(curves[threat, name, rho], metric) for rho in radii]
            ax.plot([0, *radii], found, marker=marker, ms=4, label=name)
        ax.set(ylim=(0, 100))
    column[0].set_title(threat.replace("_", " "))
    column[1].set_xlabel("radius ρ, on the scale of 0 to 100")
axes[0, 0].set_ylabel("T1 (%)")
axes[1, 0].set_ylabel("H (%)")
axes[0, 1].legend()
plt.show()


# %% [markdown]
# The two threats are two different tables of results. Per image, three points an attribute are enough for nearly everything; one table for all costs a good part of the accuracy, and random poison next to none: it is the direction that harms, not the length.
# None of these rows comes near another class's row. And in an $\ell_2$ ball the gradient's direction beats its sign under both threats, as the ratio above promised.
#
# **Does the attacker need the test images?** One table that was made against some images may owe its success to just these. So make it with half of the unseen test images, and judge it on the other half:

# %%
def t1_on(index, table):
    """T1 of DEM with these images and rows of the unseen classes."""
    return per_class_accuracy(data.labels[index], data.unseen[dem.scores(data.features[index], table).argmax(1)])


used, fresh = data.test_unseen[::2], data.test_unseen[1::2]
y_used = torch.searchsorted(data.unseen, data.labels[used])
one_table = {"threat": "universal", "which": rows, "attribute_scale": scale[data.unseen], "radius": rho}
batches = table_scores(dem, data.features[used], separable=True)
stolen = steep(batches, unseen, y_used, **one_table).tables
for what, index in {"images it was made with": used, "other images": fresh}.items():
    print(f"{what}: T1 {t1_on(index, unseen):.1f} without, {t1_on(index, stolen):.1f} with the poisoned table")

# %% [markdown]
# The harm is much the same: such a table is an attack on the classes, not on the images that it was made with.
#
# ## Which rows
#
# The attacker may reach one row, all unseen ones, or all. One row a query, that of its own class, is the cheapest attack; here with its HT1 and HHM:

# %%
listed = {"IFGSM": attacks["IFGSM"], "WRM": partial(prototypes.wrm, steps=steps)}
own_rows = evaluation.table(
    listed, threats=("per_image",), which=("own unseen",), radius=rho, attribute_scale=scale
)
for_all = evaluation.table(
    listed, threats=("universal",), which=("unseen", "seen", "seen and unseen"), radius=rho, attribute_scale=scale
)
plots.table(pd.concat([own_rows, for_all[1:]], ignore_index=True), index=False)

# %% [markdown]
# With the own row alone, an attack per image does most of what it can. Poisoned *seen* rows leave T1 where it is, since no unseen image meets them there; in the generalised task they harm AS, and the unseen rows AU.
# WRM is the strongest here. It follows the gradient and not its sign, which is worth more than its penalty.
#
# ## Who becomes whom
#
# One table for all must decide whom to send where.

# %%
before, after = (
    evaluation.run().standard,
    evaluation.run(steep, threat="universal", radius=rho, attribute_scale=scale).standard,
)
pairs = becomes(before, after, data.class_names)
plots.table(pairs.head(6), index=False)

# %% mystnb={"image": {"alt": "Prototypes of the unseen classes in the plane of their first two principal components, with arrows from classes to those that their images are taken for under the poisoned table."}}
place = PCA(2, random_state=seed).fit_transform(table.double().numpy())
number = {name: c for c, name in enumerate(data.class_names)}
fig, ax = plt.subplots(figsize=(6, 4.5))
ax.scatter(*place[data.seen].T, s=12, color=plots.SEEN, alpha=0.4, label="seen")
ax.scatter(*place[data.unseen].T, s=18, color=plots.UNSEEN, label="unseen")
for pair in pairs.head(15).itertuples():
    start, end = place[number[pair._1]], place[number[pair.becomes]]
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 0.5 + pair.more / 40, "color": "0.3"})
ax.set(xlabel="first principal component", ylabel="second principal component")
ax.legend()
plt.show()

# %% [markdown]
# ## A lie that can be read
#
# A poisoned row of small changes everywhere looks like noise in the last digits. A lie that somebody would *tell* is another: "a zebra without stripes". `flip` turns $k$ attributes of one class to the other end of their range, greedily, and says which.

# %%
victims = data.unseen[torch.linspace(0, len(data.unseen) - 1, 4).long()]
names = data.attribute_names or tuple(f"attribute {j}" for j in range(K))
lies = []
for c in victims:
    attack = partial(prototypes.flip, count=1)
    told = evaluation.poison(attack, space="standard", threat="universal", which=c[None])
    outcome = evaluation.run(attack, threat="universal", which=c[None]).standard
    mine, j = outcome.labels == c, int(told.attributes[0])
    if j >= 0:
        word = "without" if table[c, j] > told.rows[0, j] else "with"
        shares = [100 * run.right[mine].double().mean().item() for run in (before, outcome)]
        lies.append([data.class_names[c], f"{word} {names[j]}", *shares])
plots.table(pd.DataFrame(lies, columns=["class", "the lie", "recognised before", "after"]), index=False)

# %% [markdown]
# One wrong attribute of one class. It is an $\ell_2$ change of a whole flip, larger than any radius above, but one that a reader of the table could check.
#
# ## What it looks like
#
# Fig. 7 of the paper shows, by t-SNE, that attacked prototypes of unseen classes leave their places among the seen ones. Here is that figure, with random poison of the same length beside it.

# %% mystnb={"image": {"alt": "Two t-SNE maps of all classes: seen, unseen, and unseen after the poison, random on the left and IFGSM on the right. Each poisoned point lies close to its clean one in both maps."}}
clean_rows = table[data.unseen]
poisons = {
    name: evaluation.poison(attack, space="standard", threat="universal", radius=rho, attribute_scale=scale).tables
    for name, attack in {"random": random_poison, "IFGSM, gradient": steep}.items()
}
m = len(data.unseen)
fig, axes = plt.subplots(1, 2, figsize=(8.5, 4))
for ax, (name, poisoned) in zip(axes, poisons.items(), strict=True):
    place = plots.map_2d(torch.cat([table[data.seen], clean_rows, poisoned]), seed=seed)
    seen_at, clean_at, moved_at = (part.numpy() for part in torch.from_numpy(place).split([len(data.seen), m, m]))
    ax.scatter(*seen_at.T, s=10, color=plots.SEEN, alpha=0.4, label="seen")
    ax.scatter(*clean_at.T, s=16, color=plots.UNSEEN, label="unseen")
    ax.scatter(*moved_at.T, s=16, marker="x", color="black", label="unseen, poisoned")
    ax.set(title=name, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
for name, poisoned in poisons.items():
    nearest = torch.cdist(poisoned, table).argmin(1)
    print(f"{name}: {100 * (nearest == data.unseen).double().mean():.0f} % of poisoned rows are nearest to what they were")

# %% [markdown]
# Attack and random poison look alike, and every row is still nearest to itself. The harm is not where a map of the table could show it: what counts is how the recogniser reads those few points.
#
# ## Poisoned descriptions make poisoned features
#
# A generative method meets the table only when it makes the features of unseen classes, and then trains a classifier. There is no gradient through that training. So the attacker takes a surrogate, the distance to the mean of $g_\theta(c, z)$ over a few $z$,
# makes one table against it, and the victim generates and trains from this.

# %%
abp = learner("abp", {"hidden": hidden, "epochs": epochs}, seed=seed, device="cpu").fit(data, progress=False)
softmax = SoftmaxClassifier(seed=seed, epochs=10, lr=5e-3, device="cpu")
victim = SyntheticRecogniser(abp, samples=samples, zsl=softmax, gzsl=softmax, seed=seed).remember(data)
indirect = PoisonEvaluation(GeneratorMean(abp), data, victim=victim, images=images, seed=seed, separable=True)
poison = {"random": random_poison, "IFGSM": attacks["IFGSM"], "IFGSM, gradient": steep}
found = indirect.table(poison, threats=("universal",), radius=rho, attribute_scale=scale)
plots.table(found.drop(columns=["threat", "rows"]), index=False)

# %% [markdown]
# What was made for the surrogate harms the classifier, in both tasks, and random poison does not. A generator reads a description through the same kind of network as DEM does, and its features move with it.
#
# ## Differences from the paper
#
# 1. Both threats, named. The paper does not say which is meant.
# 2. For several steps the length is $1.25\,\rho/N$, as for images; the paper gives none at test time. Its Algorithm 2 has $\rho$, with which an attack cannot settle.
# 3. DEM on given features, not a relation network from pixels; hangul, whose attributes are 0 and 1, scaled to 0 and 100.
# 4. WRM needs a penalty $\gamma$, which the paper does not print: here it is set row by row so that its first-order solution has length $\rho$.
# 5. Under per-image attacks what is misrecognised anyhow is left alone, so that no accuracy rises. One table for all can raise the accuracy of some classes.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-poi-sign
# ```
# For which gradients does the sign lose nothing, and for which most? What does it gain there?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-poi-sign
# :class: dropdown
# ```

# %%
# NBVAL_CHECK_OUTPUT
for what, g in {"all alike": torch.ones(85), "one alone": torch.eye(85)[0]}.items():
    print(f"{what}: {float(g.abs().sum() / (85**0.5 * g.norm())):.3f}")

# %% [markdown]
# Nothing where all entries are of one size, most where a single attribute counts: $1/\sqrt K$.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-poi-budget
# ```
# Under `"universal"`, let the attacker move one unseen row only, but by the whole budget $\rho\sqrt m$ of $m$ rows. Is it better to concentrate?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-poi-budget
# :class: dropdown
# ```

# %%
spread_out = evaluation.run(steep, threat="universal", radius=rho, attribute_scale=scale).accuracies
one = evaluation.run(
    steep, threat="universal", which=victims[:1], radius=rho * m**0.5, attribute_scale=scale
).accuracies
print(f"T1: clean {clean['universal'].T1:.1f}, all rows {spread_out.T1:.1f}, one row by as much {one.T1:.1f}")

# %% [markdown]
# On hangul it is not: such a row loses its own class and attracts few images of others, since DEM's score falls with the length of what a row is mapped to. A bilinear score has no such brake.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-poi-loss
# ```
# The universal attack raises the *mean* cross-entropy of all images. Which images does it work for, and would the margin be a better guide?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-poi-loss
# :class: dropdown
# ```

# %%
for loss in ("ce", "margin"):
    found = evaluation.run(partial(steep, loss=loss), threat="universal", radius=rho, attribute_scale=scale)
    print(f"{loss:6} T1 {found.accuracies.T1:.1f}, AU {found.accuracies.AU:.1f}, AS {found.accuracies.AS:.1f}")

# %% [markdown]
# Either loss goes on pushing images that are lost already; the cross-entropy even favours them, since its slope is largest there. A loss that is cut off where an image is lost would spend the budget on the others.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-poi-project
# ```
# Write one step of the attack on a table, each row in a ball of its own,
#
# $$
# p'_c\leftarrow\mathrm{Proj}_{\lVert p'_c - p_c\rVert_2\le\rho_c}\bigl\{p'_c + \sqrt{\rho_c^2/K}\,\operatorname{sign}\nabla_{p_c}L\bigr\} ,
# $$
#
# for a slope that is given. The projection onto a ball is its nearest point: the check looks for that with an optimiser that knows no formula.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-poi-project
# :class: dropdown
# ```
# A row that is inside stays where it is; one that is outside is pulled back along the line to the centre of its ball, which is the clean row.

# %% tags=["exercise"]
import torch


def table_step(moved, table, slope, rho):
    """The next table [C, K]. moved, table, slope: [C, K]; rho: [C]."""
    ### BEGIN SOLUTION
    K, rho = table.shape[1], rho[:, None]
    delta = moved + rho / K**0.5 * slope.sign() - table
    length = delta.norm(dim=1, keepdim=True)
    return table + delta * (rho / length).clamp(max=1)
    ### END SOLUTION


# %% tags=["check"]
from scipy.optimize import minimize

from zsl_lib.exercises import compare


def nearest_in_ball(target, centre, radius):
    inside = {"type": "ineq", "fun": lambda p: radius**2 - ((p - centre) ** 2).sum()}
    far = {"fun": lambda p: ((p - target) ** 2).sum(), "x0": centre, "tol": 1e-12}
    return minimize(**far, constraints=inside).x


g = torch.Generator().manual_seed(0)
clean_table, slope = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
balls = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
once = table_step(clean_table, clean_table, slope, balls)
length = balls[:, None] / 4**0.5  # of the sign's entries
compare("a first step, of length ρ", once, clean_table + length * slope.sign())
turned = slope.roll(1, dims=1)
twice = table_step(once, clean_table, turned, balls)
outside = once + length * turned.sign()
for c in range(3):
    given = (values[c].numpy() for values in (outside, clean_table, balls))
    compare(f"a second step, row {c}", twice[c], nearest_in_ball(*given), tolerance=1e-4)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# A table of descriptions is part of the recogniser, and a part that others may write. Changes of a few points an attribute ruin recognition if every image meets a table of its own. One table for all, which is what an editor of a file can make, harms less, but it harms new images as well, where random changes of the same length do nothing. Results that do not name the threat cannot be compared.
