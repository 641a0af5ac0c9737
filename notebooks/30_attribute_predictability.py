# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which attributes can be seen?
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - measure how well features predict an attribute, against three baselines;
# - say why *any* attribute, a coin's too, is predictable on the classes that a probe has learned from;
# - put an interval around a predictability, and say of what it is a sample;
# - test whether attributes that cannot be seen spoil zero-shot recognition, and for whom;
# - relate what an attribute's probe says to what a lie about it does.
#
# You need [Compatibility models](11_compatibility_models) for DAP, ESZSL and GFZSL, and [The relation network](20_relation_network).
# :::
#
# **The question.** Paper 2 {cite}`zhang2019atzsl` builds its case for an intermediate space on one figure. It shows, for each binary attribute of AwA2, the accuracy of a last layer that was fine-tuned to predict it:
#
# > the non-visual components are often included in the provided semantic prototypes, such as "smart", "agility", and "inactive" […]. Based only on visual information, these attributes are almost impossible to be predicted and even with the level of random guess as observed from Fig. 2. Thus, the learned projection cannot generalize well on the unseen class domain, although work normally in the seen class domain through supervised training. (§2)
#
# The figure does not say on which images, of which classes, and has no baseline. What does such an accuracy mean, and does the conclusion follow?

# %% tags=["parameters"]
dataset = "hangul"  # data set with attributes: hangul, CUB, AWA2, SUN, CUB100, or a folder
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, or data/
seed = 0  # seed of shuffles, resamples and weights; 0 or larger
shuffles = 3  # random tables where one would be too few; 1 or larger
epochs = 6  # passes of the relation network over the training features; 1 or larger
width = 128  # its layers; 1 or larger
search = True  # choose settings anew for each table with random attributes; False: those of the true table

# %%
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm, spearmanr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from torch import nn

from zsl_lib import plots, tuning
from zsl_lib.attributes import binary, fit_probes, predictability, shuffled
from zsl_lib.data import data_root, load
from zsl_lib.embedding.dap import DAP
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.embedding.gfzsl import GFZSL
from zsl_lib.embedding.moments import blocks, collect
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.metrics import per_class_accuracy

plots.style()
data = load(dataset, root or None).scaled()
validation = data.tuning_split().scaled()  # its "test" classes are validation classes
has = binary(data.semantics, data.seen)  # [C, K], True where a class has more than the seen classes' mean
K = has.shape[1]
data


# %% [markdown]
# Attributes that are not 0 and 1 become so as in DAP: a class *has* one if it has more of it than the seen classes on average.
#
# ## A probe
#
# A *probe* of attribute $j$ is a logistic regression from features to whether the image's class has it,
#
# $$
# \min_{w, b}\; \sum_i \log\bigl(1 + e^{\ell_j(x_i)}\bigr) - a^{y_i}_j\,\ell_j(x_i) + \tfrac\lambda2\lVert w\rVert^2, \qquad \ell_j(x) = w_j^\top x + b_j .
# $$ (eq-see-probe)
#
# That is what remains of a network whose last layer alone is trained. The library learns all $K$ at once; scikit-learn agrees on one:

# %%
def learn(dataset, table, lam):
    """Probes of a table's attributes, learned on the training images."""
    return fit_probes(dataset.x(dataset.trainval), dataset.labels[dataset.trainval], table, lam=lam)


def measure(probes, dataset, index, table, **options):
    """Predictability of each attribute on some images."""
    rng = torch.Generator().manual_seed(seed)
    return predictability(probes.logits(dataset.x(index)), dataset.labels[index], table, generator=rng, **options)


# %%
# NBVAL_CHECK_OUTPUT
x, target = data.x(data.trainval).double(), has[data.labels[data.trainval]]
once = learn(data, has, 10.0)
often = int(has[data.seen].sum(0).argmax())
alone = LogisticRegression(C=1 / 10.0, tol=1e-6, max_iter=2000).fit(x.numpy(), target[:, often].numpy())
gap = abs(alone.predict_proba(x.numpy())[:, 1] - once.probabilities(x)[:, often].numpy()).max()
print("scikit-learn's probabilities:", bool(gap < 0.01))

# %% [markdown]
# $\lambda$ is validation's: learned on training classes, the best mean AUC on validation classes.

# %%
known = binary(validation.semantics, validation.seen)
on_validation = {}
for lam in (1.0, 10.0, 100.0, 1000.0):
    probes = learn(validation, known, lam)
    on_validation[lam] = measure(probes, validation, validation.test_unseen, known, resamples=1)
lam = max(on_validation, key=lambda value: on_validation[value]["auc"].mean())
valid = on_validation[lam]["auc"]
probes = learn(data, has, lam)
print(f"λ = {lam:g};", f"attributes that do not vary among seen classes: {int(probes.constant.sum())}")


# %% [markdown]
# ## What to compare with
#
# Four things can be meant by "predictable", and only the first is in the paper's figure:
#
# - **accuracy**, the share of images on the right side of $p = \tfrac12$;
# - that of the **majority**: who always says "no" of an attribute that 3 % of classes have is right in 97 %;
# - **balanced** accuracy, the mean of the accuracies with and without the attribute: 50 for any constant answer;
# - **AUC**, the chance that an image of a class with the attribute scores above one of a class without: 50 for a coin, and no threshold in it.
#
# Classes count alike in all four. And there are two questions to ask them: of new images of the classes that the probe has *learned from* (`test_seen`), and of *new classes* (`test_unseen`).
#
# The third baseline is a table about which images can say nothing. Deal the rows of the table out to other classes, seen rows among the seen, unseen among the unseen. Frequencies and correlations of attributes stay; their meaning is lost.

# %%
def nonsense(number):
    """A shuffled table."""
    rng = torch.Generator().manual_seed(1000 * seed + number)
    return shuffled(has, data.seen, data.unseen, generator=rng)


# %%
dealt = nonsense(0)
dealt_probes = learn(data, dealt, lam)
found = {
    (rows, on): measure(made, data, index, table)
    for rows, made, table in (("true", probes, has), ("shuffled", dealt_probes, dealt))
    for on, index in (("seen", data.test_seen), ("unseen", data.test_unseen))
}
summary = pd.DataFrame(
    [{"table": k[0], "classes": k[1]} | f[["accuracy", "majority", "balanced", "auc"]].mean().to_dict() for k, f in found.items()]
)
plots.table(summary.rename(columns={"auc": "AUC"}), index=False)

# %%
# NBVAL_CHECK_OUTPUT
mean_auc = {key: frame["auc"].mean() for key, frame in found.items()}
print("nonsense is predictable on seen classes:", mean_auc["shuffled", "seen"] > 80)
print("and a coin's toss on unseen ones:", abs(mean_auc["shuffled", "unseen"] - 50) < 5)
print("true attributes are predictable on unseen classes:", mean_auc["true", "unseen"] > 65)

# %% [markdown]
# On seen classes the probes of nonsense do nearly as well as those of true attributes. What they have learned is who the classes are. So on seen classes predictability says next to nothing about attributes; that of unseen classes does, and there nonsense is at 50.
# And accuracy can hardly tell: on unseen classes it is near that of the constant answer even where the AUC is far from a coin's, since $p=\tfrac12$ is the wrong place to cut for what is rare.
#
# ## Why nonsense can be learned
#
# **A recogniser is enough.** Let somebody recognise seen classes, each with an accuracy of at least $A$ on new images. He then predicts *any* attribute with a balanced accuracy of at least $A$: he says what the table says of the class that he recognises. So the paper's "work normally in the seen class domain" holds for every table, also a meaningless one.

# %%
lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x.numpy(), data.labels[data.trainval].numpy())
said = torch.from_numpy(lda.predict(data.x(data.test_seen).double().numpy()))
print(f"recognises seen classes: {per_class_accuracy(data.labels[data.test_seen], said):.1f} %")
for rows, table in (("true", has), ("shuffled", dealt)):
    logit = table[said].double() - 0.5
    scored = predictability(logit, data.labels[data.test_seen], table, generator=torch.Generator(), resamples=1)
    print(f"balanced accuracy of what the table says of them, {rows}: {scored['balanced'].mean():.1f} %")

# %% [markdown]
# **Room for any table.** How many features does that take? A linear probe on $d$ features can split $C$ class means in general position as a random table wants with probability {cite}`cover1965geometrical`
#
# $$
# P(C, d) = 2^{1-C}\sum_{k=0}^{d}\binom{C-1}{k} = \Pr\bigl[\mathrm{Bin}(C-1, \tfrac12)\le d\bigr] ,
# $$ (eq-see-cover)
#
# which is 1 for $C\le d+1$ and one half at $C = 2(d+1)$, that is $d = C/2 - 1$. Paper 2's backbone has 2,048 features and AwA 40 seen classes: there is room for any table, many times over. To see the room shrink, project on the first $d$ principal components.

# %%
centred = x - x.mean(0)
axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).float()
dims = [d for d in (2, 8, 32, 128, 512) if d < x.shape[1]]
rows = []
for d in dims:
    small = replace(data, features=data.features @ axes[:, :d])
    for name, table in (("true", has), ("shuffled", dealt)):
        made = learn(small, table, lam)
        for on, index in (("seen", data.test_seen), ("unseen", data.test_unseen)):
            auc = measure(made, small, index, table, resamples=1)["auc"].mean()
            rows.append({"d": d, "table": name, "classes": on, "AUC": auc})
# all components are a rotation of the features, and a probe does not mind: the numbers above
dims.append(x.shape[1])
rows += [{"d": dims[-1], "table": name, "classes": on, "AUC": auc} for (name, on), auc in mean_auc.items()]
room = pd.DataFrame(rows)

# %% mystnb={"image": {"alt": "Mean AUC against the number of principal components. On seen classes the lines of true and of shuffled attributes rise together towards 100. On unseen classes the true line rises more slowly and stays lower; the shuffled one stays at 50. A vertical line marks where half of all random attributes can be split."}}
fig, ax = plt.subplots(figsize=(7, 3.5))
for (on, name), part in room.groupby(["classes", "table"], sort=False):
    colour = plots.SEEN if on == "seen" else plots.UNSEEN
    ax.plot(part["d"], part["AUC"], color=colour, ls="-" if name == "true" else "--", marker="o", ms=4, label=f"{on}, {name}")
ax.axvline(len(data.seen) / 2 - 1, color="grey", ls=":", label="room for half\nof all attributes")
ax.set(xscale="log", xticks=dims, xticklabels=dims, xlabel="principal components d", ylabel="mean AUC (%)", ylim=(40, 101))
ax.minorticks_off()
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# The more features, the less a probe on seen classes cares whether the attribute means anything. Attributes that few classes have need less room than Cover's random halves, and an AUC is high long before a split is perfect. On unseen classes more features help as well, but only what is true.
#
# ## How sure?
#
# An attribute has one value a class. Another image of a class brings new light and a new pose, but no new value: what varies when the experiment is repeated is the choice of *classes*. So the bootstrap draws classes, those with and those without the attribute apart, and keeps their images.
# What happens if one draws images instead? Call every image a class of its own:

# %%
unseen = found["true", "unseen"]
measured = unseen["low"].notna()
index, rng = data.test_unseen, torch.Generator().manual_seed(seed)
logits = probes.logits(data.x(index))
by_image = predictability(logits, torch.arange(len(index)), has[data.labels[index]], generator=rng, resamples=100)
width_of = {"classes": unseen, "images": by_image[measured]}
for what, frame in width_of.items():
    print(f"drawn are {what}: the median interval of an AUC is {(frame['high'] - frame['low']).median():.1f} points wide")

# %% [markdown]
# Images promise far too much. Do the classes keep their word? If unseen rows are dealt out anew, the truth is 50, and an interval of 95 % should miss it for 5 of 100 attributes.

# %%
rows = []
for number in range(2 * shuffles):
    table = shuffled(has, data.unseen, generator=torch.Generator().manual_seed(1000 * seed + number))
    null = measure(probes, data, data.test_unseen, table, resamples=300)
    null["misses"] = 100 * ((null["low"] > 50) | (null["high"] < 50))
    rows.append(null[null["low"].notna()])
null = pd.concat(rows)
smaller = np.minimum(null["have"], null["classes"] - null["have"])
print("intervals that miss 50, in %, by the classes on the smaller side:")
print(null.groupby(pd.cut(smaller, [1, 3, 6, np.inf], labels=["2 or 3", "4 to 6", "7 or more"]), observed=True)["misses"].mean().round(0).to_string())

# %% [markdown]
# With two or three classes on a side, the interval is too narrow: a few classes cannot say how much classes differ. One class gets no interval at all. Keep this in mind below.
#
# ## Which attributes?
#
# A guess, before we look: attributes that few seen classes have are learned badly.

# %%
names = data.attribute_names or tuple(f"attribute {j}" for j in range(K))
unseen = unseen.assign(
    attribute=names,
    kind=[re.split(r"::| ", name)[0] for name in names],
    learned=has[data.seen].sum(0).numpy(),
    validation=valid.to_numpy(),
)
shown = unseen.dropna(subset="low")
print(f"{unseen['auc'].isna().sum()} of {K} attributes cannot be judged: no unseen class has them, or all")
print(f"{len(shown)} have an interval; it lies above 50 for {(shown['low'] > 50).sum()}, below for {(shown['high'] < 50).sum()}")

# %% mystnb={"image": {"alt": "Left: the AUC of each attribute on unseen classes with its interval, sorted; most intervals lie above 50. Right: the AUC against the number of seen classes that have the attribute, without a trend."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.5), sharey=True)
ordered = shown.sort_values("auc")
place = np.arange(len(ordered))
left.vlines(place, ordered["low"], ordered["high"], color="0.7", lw=1)
left.plot(place, ordered["auc"], ".", color=plots.UNSEEN)
left.set(xlabel="attribute, worst first", ylabel="AUC on unseen classes (%)")
right.plot(unseen["learned"], unseen["auc"], ".", color=plots.UNSEEN)
right.set(xlabel="seen classes that have it")
for ax in (left, right):
    ax.axhline(50, color="grey", ls=":")
plt.show()

# %%
judged = unseen.dropna(subset="auc")
both = judged.dropna(subset="validation")
print(f"rank correlation with the seen classes that have it: {spearmanr(judged['learned'], judged['auc']).statistic:.2f}")
print(f"with the AUC on validation classes: {spearmanr(both['validation'], both['auc']).statistic:.2f} ({len(both)} attributes)")
columns = ["attribute", "have", "learned", "accuracy", "majority", "balanced", "auc", "low", "high", "validation"]
ends = pd.concat([ordered.head(5), ordered.tail(5)])[columns]
plots.table(ends.rename(columns={"auc": "AUC", "learned": "seen classes", "have": "unseen classes"}), index=False, precision=0)

# %%
kinds = judged.groupby("kind").agg(attributes=("auc", "size"), AUC=("auc", "mean"), sd=("auc", "std"))
kinds = kinds.sort_values("AUC", ascending=False)
plots.table(kinds if len(kinds) < 12 else pd.concat([kinds.head(5), kinds.tail(5)]))

# %% [markdown]
# The guess fails: the number of seen classes says little. All letters of hangul can be seen, of course, and nearly all are; vowels are read less well than consonants. Look at the accuracies of the worst: they are as good as those of the best, because the majority is.
#
# And *which* attribute is worst is hardly a property of the attribute. On hangul the AUC on validation classes does not foretell that on unseen classes, since few classes have a letter and each judges it by its own company; on CUB100, with more classes a side, it does in part. AwA has ten unseen classes. An exercise shows what the worst of 85 attributes looks like there if all are equally good.
#
# ## "Smart"
#
# We have no image of AwA, but its table says something by itself: *not visual* does not mean *not predictable*. Suppose that an image gave away exactly how an animal looks: the colours, the coat, the build, the 33 attributes up to *tusks*. How well would the other 52 be known of a new animal? Probes again, from looks to the rest, with animals held out in ten folds. The cell runs where AwA's `predicate-matrix-continuous.txt` and `predicates.txt` are.

# %%
places = [data_root(root or None) / name for name in ("AWA2", "splits/AWA2")]
folder = next((p for p in places if (p / "predicate-matrix-continuous.txt").exists()), None)


def from_looks(matrix, last, rows):
    """AUC of attributes beyond the first ``last``, of animals held out, predicted from the first."""
    animals = torch.arange(len(matrix))
    looks = (matrix[:, :last] - matrix[:, :last].mean(0)) / matrix[:, :last].std(0)
    table = binary(matrix, animals)[rows, last:]
    logits = torch.zeros(table.shape)
    for train, test in KFold(10, shuffle=True, random_state=seed).split(animals):
        made = fit_probes(looks[train], torch.arange(len(train)), table[train], lam=10.0)
        logits[test] = made.evidence(looks[test]).float()  # each fold has a prior of its own
    return predictability(logits, animals, table, generator=torch.Generator().manual_seed(seed))


if folder is None:
    print("AwA's table is not at hand: see the book's data page")
else:
    predicates = [line.split()[1] for line in (folder / "predicates.txt").read_text().splitlines()]
    matrix = torch.from_numpy(np.loadtxt(folder / "predicate-matrix-continuous.txt")).float()
    last = predicates.index("tusks") + 1
    awa = from_looks(matrix, last, torch.arange(len(matrix))).set_index(pd.Index(predicates[last:]))
    rng = torch.Generator().manual_seed(seed)
    chance = [from_looks(matrix, last, torch.randperm(len(matrix), generator=rng))["auc"].mean() for _ in range(shuffles)]
    print(f"mean AUC from looks: {awa['auc'].mean():.0f}; with rows dealt out anew: {np.mean(chance):.0f}")
    print(awa.loc[["smart", "agility", "inactive", "smelly", "flys"], ["have", "auc", "low", "high"]].round(0).to_string())

# %% [markdown]
# Run with the table, the paper's three examples are predicted well from looks, with intervals above 50. Among AwA's animals, smart goes with a lean build and with teeth for meat, and not with hooves and horns: a probe needs no notion of intelligence, only its company, as far as new animals keep it. This is no test of Fig. 2, since no backbone sees looks exactly; but that "smart" is invisible does not follow from its being no colour.
#
# ## Does it matter?
#
# The paper's argument has three steps: there are attributes that cannot be predicted; so a projection from images to attributes does not generalise; so one should meet elsewhere. Let us put numbers on the second and third, on unseen classes, with models that meet at three places: DAP at the attributes, ESZSL in between, GFZSL at the features; and the relation network, with the backbone frozen.
#
# First, what a score is. DAP's, {eq}`eq-comp-dap`, is linear in the attributes $a\in\{0,1\}^K$ of the class:
#
# $$
# F(x, a) = \sum_j a_j\,G_j(x) + \text{const}(x), \qquad G_j(x) = \ell_j(x) - \log\frac{\pi_j}{1-\pi_j} ,
# $$ (eq-see-evidence)
#
# with $\pi_j$ the share of seen classes that have it. $G_j$ is the *evidence* of an image for attribute $j$, by how much it changes the odds. A bilinear model is linear in $a$, too, with $G(x) = V^\top x$. So both groups of methods predict attributes, in the sense of giving each a number that is then summed; they differ in what the numbers are fitted to.

# %%
# NBVAL_CHECK_OUTPUT
test_x, y = data.x(data.test_unseen), data.labels[data.test_unseen]
evidence, rows_of = probes.evidence(test_x), has[data.unseen].double()
gap = DAP(lam=lam).fit(data).scores(test_x, data.semantics[data.unseen]) - evidence @ rows_of.T
print("DAP is this, but for a constant of the image:", bool((gap - gap[:, :1]).abs().max() < 1e-3))


# %% [markdown]
# ESZSL's targets are −1 for nearly all classes, so what its attributes share is a large negative number, and a row with fewer attributes wins everywhere (an exercise). In this chapter rows lose and gain attributes; so ESZSL gets what ridge regression has, a mean, and all rows are written as $\pm1$, which makes them equally long.

# %%
class Centred(ESZSL):
    """ESZSL about the mean image and the mean class."""

    def _solve(self, moments, s):
        n = moments.counts
        self.mean_x, self.mean_s = moments.sums.sum(0) / n.sum(), s.mean(0)
        sums, gram = moments.sums - n[:, None] * self.mean_x, moments.gram - n.sum() * self.mean_x.outer(self.mean_x)
        super()._solve(replace(moments, sums=sums, gram=gram), s - self.mean_s)

    def _scores(self, x, s):
        return super()._scores(x.double() - self.mean_x, s.double() - self.mean_s)


def described(table):
    """The data with rows of ±1."""
    return replace(data, semantics=2 * table.float() - 1, attribute_names=())


def right(scores):
    """T1 of scores [n, unseen classes]."""
    return per_class_accuracy(y, data.unseen[scores.argmax(1)])


sums = collect(blocks(x, torch.searchsorted(data.seen, data.labels[data.trainval])), len(data.seen))
KINDS = {"ESZSL": Centred, "GFZSL": GFZSL}
GRIDS = {Centred: {"gamma": [10.0, 100.0, 1000.0], "lam": [0.01, 1.0, 100.0]}, GFZSL: {"kernel": ["linear", "rbf"], "lam": [1e-4, 0.01, 1.0]}}


def tuned(kind, dataset):
    """Fitted with the settings that are best on validation."""
    best = tuning.search(kind, GRIDS[kind], dataset).loc[0, list(GRIDS[kind])].to_dict()
    return kind(**best).fit(dataset)


def fit(kind, dataset):
    """Fitted with the settings of the true table. Of the images it takes sums, and these are there already."""
    return kind(**settings[kind]).fit_moments(sums, dataset.semantics[data.seen])


# %%
class Given(nn.Module):
    """In place of a backbone: features are given."""

    width = data.features.shape[1]


def relation_network(dataset):
    config = RelationConfig(freeze=True, epochs=epochs, embedding=width, attribute_hidden=width, hidden=width, batch_size=32)
    return RelationLearner(config, seed=seed, device="cpu", backbone=Given()).fit(dataset, progress=False)


# %% [markdown]
# **Take the bad ones out.** If attributes that cannot be predicted spoil the projection, T1 rises when they are left out. Which those are, validation classes have to say. One trap: with fewer attributes two classes may get the same row, and nobody can tell them apart. The dotted line is who knows all attributes that are left.

# %%
order = valid.dropna().sort_values(kind="stable").index.to_numpy()  # worst first
fitted = {kind: tuned(kind, described(has)) for kind in GRIDS}
settings = {kind: {name: getattr(model, name) for name in GRIDS[kind]} for kind, model in fitted.items()}


def without(dropped):
    """T1 of each method when some attributes are left out, and of perfect knowledge of the others."""
    kept = torch.from_numpy(np.setdiff1d(np.arange(K), dropped))
    part = described(has[:, kept])
    row = {"DAP": right(evidence[:, kept] @ rows_of[:, kept].T)}
    for name, kind in KINDS.items():
        model = fit(kind, part)
        row[name] = right(model.scores(test_x, part.semantics[data.unseen]))
    return row | {"knows them": 100 * len(rows_of[:, kept].unique(dim=0)) / len(data.unseen)}


rows = []
for share in (0.0, 0.1, 0.2, 0.35, 0.5, 0.75):
    count = round(share * len(order))
    rows.append({"left out": "worst", "count": count} | without(order[:count]))
    rows.append({"left out": "best", "count": count} | without(order[len(order) - count :]))
    for number in range(shuffles):
        drawn = np.random.default_rng(1000 * seed + number).permutation(order)[:count]
        rows.append({"left out": "random", "count": count} | without(drawn))
fewer = pd.DataFrame(rows).groupby(["left out", "count"]).mean()

# %% mystnb={"image": {"alt": "Three panels, DAP, ESZSL and GFZSL: T1 against the number of attributes left out, worst first, best first, or at random, with a dotted line of perfect knowledge."}}
fig, axes_ = plt.subplots(1, 3, figsize=(8.5, 3.2), sharey=True)
for ax, name in zip(axes_, ("DAP", "ESZSL", "GFZSL"), strict=True):
    for which, marker in (("worst", "o"), ("random", "s"), ("best", "x")):
        part = fewer.loc[which]
        ax.plot(part.index, part[name], marker=marker, ms=4, label=which)
    ax.plot(fewer.loc["random"].index, fewer.loc["random"]["knows them"], ":", color="grey", label="random, all known")
    ax.set(title=name, xlabel="attributes left out", ylim=(0, 101))
axes_[0].set_ylabel("T1 (%)")
fig.legend(*axes_[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %%
start = fewer.loc["worst"].iloc[0]
gain = (fewer.loc["worst"] - start)[["DAP", "ESZSL", "GFZSL"]].iloc[1:].max()
print("most that is gained by leaving the worst out:", ", ".join(f"{k} {v:+.1f}" for k, v in gain.items()))


# %% [markdown]
# On hangul nothing is gained anywhere. What validation calls the worst letters is nearly as good as any, and every letter that goes takes away what tells two syllables apart. On CUB100, with some three attributes a class, a point or two is gained at best, which 27 classes cannot tell from nothing; but there the choice by validation is worth something, since ESZSL and GFZSL do worse with a half that lacks the best than with another. The attributes that tables have are not the proof that the paper needs.
#
# **Put bad ones in.** So take attributes that are certainly not visual: the columns of a shuffled table, beside the true ones. They are as frequent as true ones, learned as well on seen classes, and worth nothing on unseen ones. Settings are chosen anew by validation each time.

# %%
def with_nonsense(number, counts):
    """T1 of each method with so many random attributes beside the true ones, a row for each of ``counts``."""
    rng = torch.Generator().manual_seed(1000 * seed + number)
    order = torch.randperm(K, generator=rng)
    added = nonsense(number)[:, order]
    known = torch.cat([evidence, learn(data, added, lam).evidence(test_x)], 1)  # a probe knows no other attribute
    for count in counts:
        table = torch.cat([has, added[:, :count]], 1)
        dataset = described(table)
        models = {name: (tuned if search else fit)(kind, dataset) for name, kind in KINDS.items()}
        if number == 0 and count in (0, K):
            models["relation network"] = relation_network(dataset)
        row = {name: right(model.scores(test_x, dataset.semantics[data.unseen])) for name, model in models.items()}
        yield {"random attributes": count, "DAP": right(known[:, : K + count] @ table[data.unseen].double().T)} | row


rows = [row for number in range(shuffles) for row in with_nonsense(number, (K // 2, K) if number else (0, K // 2, K))]
polluted = pd.DataFrame(rows).groupby("random attributes").mean()
plots.table(polluted)

# %% mystnb={"image": {"alt": "T1 of DAP, ESZSL, GFZSL and the relation network against the number of random attributes: all fall."}}
fig, ax = plt.subplots(figsize=(5, 3.3))
for name, marker in zip(polluted.columns, "osx^", strict=True):
    part = polluted[name].dropna()
    ax.plot(part.index, part, marker=marker, ms=5, label=name)
ax.set(xlabel="random attributes beside the true ones", ylabel="T1 (%)", ylim=(0, None))
ax.legend()
plt.show()

# %%
kept = 100 * polluted.loc[K] / polluted.loc[0]
print("of T1 is left with as many random attributes as true ones, in %:", ", ".join(f"{k} {v:.0f}" for k, v in kept.items()))


# %% [markdown]
# The second step is right: what cannot be seen, and is learned all the same, harms recognition of new classes. The third is not. Every model falls, wherever it meets, since every one of them must read a row half of which is nonsense. On hangul it is the two with a ridge that keep most, one at the features and one in between; the relation network (one table, not the mean of several), with its learned intermediate space, loses as large a part as DAP does. On CUB100 the order is the reverse: there DAP and the relation network keep more.
# No place to meet protects.
# Judge it so: that DAP is behind in tables such as [that of chapter 11](11_compatibility_models) has other causes than invisible attributes, for it is behind with a table of letters, all of which can be seen; and an intermediate space is no remedy against a bad description.
#
# ## What a lie costs
#
# Now the bridge to the next chapter. Somebody turns one attribute of one class, $a_j\to1-a_j$. By {eq}`eq-see-evidence` the score of that class changes by exactly $\pm G_j(x)$. Were a probe honest about what it cannot see, then $\ell_j = \log\frac{\pi_j}{1-\pi_j}$, $G_j = 0$, and the lie would cost *nothing*: an attribute that nobody reads. But a probe that has learned by heart who the seen classes are answers unseen ones with confidence, right or wrong. Then a lie about an unpredictable attribute shifts scores at random, and costs on average nothing either, as half of the time it corrects an error. So: the better an attribute can be predicted, the more its lies should cost.

# %%
def cost(G):
    """Accuracy that a class loses, in points, by a lie about each of its attributes: [unseen classes, K]."""
    scores, column = G @ rows_of.T, torch.searchsorted(data.unseen, y)
    lost = torch.empty_like(rows_of)
    for c in range(len(rows_of)):
        mine = column == c
        others = scores[mine].index_fill(1, torch.tensor(c), -torch.inf).amax(1, keepdim=True)
        told = scores[mine, c][:, None] + (1 - 2 * rows_of[c]) * G[mine]
        before, after = (scores[mine, c][:, None] > others).double(), (told > others).double()
        lost[c] = 100 * (before - after).mean(0)
    return lost


model = fitted[Centred]
readings = {"DAP": evidence, "ESZSL": 2 * (test_x.double() - model.mean_x.double()) @ model.V}
lost = {name: cost(G) for name, G in readings.items()}
is_there = rows_of.bool()
rows = []
for name, points in lost.items():
    for lie, chosen in (("without", is_there), ("with", ~is_there)):
        each = points.where(chosen, torch.nan).nanmean(0).numpy()
        ok = (unseen["auc"].notna() & ~np.isnan(each)).to_numpy()
        size = readings[name].abs().mean(0).numpy()
        rows.append({
            "method": name, "lie": lie, "mean cost (points)": points[chosen].mean().item(),
            "rank correlation with AUC": spearmanr(unseen["auc"][ok], each[ok]).statistic,
            "with mean |G|": spearmanr(size[ok], each[ok]).statistic,
        })
plots.table(pd.DataFrame(rows), precision=2, index=False)

# %% mystnb={"image": {"alt": "Two panels, DAP and ESZSL: points of accuracy that a class loses when one of its attributes is denied, against the AUC of that attribute on unseen classes."}}
fig, axes_ = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for ax, (name, points) in zip(axes_, lost.items(), strict=True):
    ax.plot(unseen["auc"], points.where(is_there, torch.nan).nanmean(0), ".", color=plots.UNSEEN)
    ax.axhline(0, color="grey", ls=":")
    ax.set(title=name, xlabel="AUC on unseen classes (%)")
axes_[0].set_ylabel("cost of “without” (points)")
plt.show()

# %% [markdown]
# That is what happens: denying an attribute costs more, the better images show it, and a lie about what cannot be seen costs little. It holds for ESZSL as well, which has never met the probes. On CUB100, where a row has 312 entries, a single lie costs a point at most, and the order is the same. A predictable attribute is a strong witness, and a strong witness is worth bribing.
#
# ## What a lie leaves behind
#
# The same numbers accuse the liar. Images of class $c$ have a mean evidence $\bar G_{cj}$, and an entry of the table that they contradict has
#
# $$
# r_{cj} = (1 - 2 a_{cj})\,\bar G_{cj} > 0 .
# $$ (eq-see-contradiction)
#
# How well does $r$ tell a lie from a true entry, if each entry in turn is turned over?

# %%
mean_evidence = torch.stack([evidence[y == c].mean(0) for c in data.unseen])
against = (1 - 2 * rows_of) * mean_evidence  # of true entries; of a lie about the same entry, the negative
can_judge = torch.tensor(unseen["auc"].notna().to_numpy())
seen_well = torch.tensor((unseen["auc"] >= unseen["auc"].median()).to_numpy())
halves = {"all attributes": can_judge, "the better half": can_judge & seen_well, "the other half": can_judge & ~seen_well}
for what, some in halves.items():
    true, false = against[~is_there & some], -against[is_there & some]  # the table says "without" of both
    detected = roc_auc_score([0] * len(true) + [1] * len(false), torch.cat([true, false]))
    print(f"{what}: a false “without” is above a true one with a chance of {100 * detected:.0f} %")

# %% [markdown]
# (For a "with" the chance is the same: it is the same comparison with both signs turned.) What can be predicted can be checked. This detector had the images' classes, which nobody has at test time; [attribute poisoning](31_attribute_poisoning) comes first, and its defences make use of the idea without them.
#
# ## Differences from the paper
#
# 1. Probes are logistic regressions on given features, $\lambda$ from validation classes by AUC, for DAP as well; the paper fine-tunes the last layer of ResNet101 and gives no more.
# 2. Accuracy stands beside the majority's, balanced accuracy and AUC, all with classes that count alike. The paper's figure has accuracy.
# 3. Seen and unseen classes apart. The paper does not say of which its figure is.
# 4. A shuffled table as a control, and intervals over classes.
# 5. hangul, or CUB100 with `-p dataset CUB100`. AwA's images are not free to redistribute; of AwA there is the table alone. CUB's backbone was trained on ImageNet, which has some of its unseen species.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-see-worst
# ```
# AwA2 has ten unseen classes and 85 attributes. Let every attribute have a true AUC of 80 %, normal scores with a spread between classes alone, and five classes with and five without it. What AUC has the worst of the 85?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-see-worst
# :class: dropdown
# The chance that one of $N(\delta, 1)$ is above one of $N(0, 1)$ is $\Phi(\delta/\sqrt2)$, so $\delta = \sqrt2\,\Phi^{-1}(0.8)$.
# ```

# %%
# NBVAL_CHECK_OUTPUT
draws = np.random.default_rng(0)
delta = 2**0.5 * norm.ppf(0.8)
with_it, without_it = draws.normal(delta, size=(1000, 85, 5, 1)), draws.normal(size=(1000, 85, 1, 5))
auc = 100 * (with_it > without_it).mean((2, 3))
print(f"mean {auc.mean():.0f}; the worst of 85: {np.median(auc.min(1)):.0f}; at 50 or below: {(auc <= 50).mean() * 85:.0f} of 85")

# %% [markdown]
# The worst are far below a coin though all are alike. To call one attribute unpredictable takes more classes, or an interval.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-see-accuracy
# ```
# A probe of an attribute that a share $q$ of classes has gets both sides right with probability $b$: its balanced accuracy is $b$. When is its accuracy below the majority's? What does a picture of accuracies alone show of a rare attribute?
# ```{exercise-end}
# ```
#
# ```{solution} ex-see-accuracy
# :class: dropdown
# Its accuracy is $qb + (1-q)b = b$, the majority's $\max(q, 1-q)$. So it is below whenever $b < 1-q$: with $q = 0.03$ a probe that is right in 95 % of either side has a worse accuracy than a constant. A picture of accuracies shows the frequencies of attributes, and common ones, with $q$ near one half, as the hard ones.
# ```
#
# ```{exercise-start}
# :label: ex-see-centre
# ```
# ESZSL as it is printed, with rows of 0 and 1: deny one attribute of one class. To how many of the test images does that class become the best, and with the centred model?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-see-centre
# :class: dropdown
# ```

# %%
c = int(is_there.sum(1).argmax())  # an unseen class with many attributes
j = int(is_there[c].nonzero()[0])
for name, kind, low in (("as printed", ESZSL, 0.0), ("centred", Centred, -1.0)):
    part = replace(data, semantics=low + (1 - low) * has.float())
    model = kind(**settings[Centred]).fit(part)
    table = part.semantics[data.unseen].clone()
    before = (model.scores(test_x, table).argmax(1) == c).double().mean()
    table[c, j] = low
    after = (model.scores(test_x, table).argmax(1) == c).double().mean()
    print(f"{name}: {100 * before:.1f} % of the images go to the class, {100 * after:.1f} % after the lie")

# %% [markdown]
# On hangul, where each row has the same number of ones, the $-1$ of the targets is shared by the letters of a row, and a row with a letter less is less negative for every image. On CUB100 rows have many ones and the share of each is small.
# ```{solution-end}
# ```
#
# ```{exercise-start}
# :label: ex-see-pairs
# ```
# Show that the AUC of this chapter is the mean over pairs of classes, one with and one without the attribute, of the AUC of that pair; and the ordinary AUC of all images if all classes have equally many.
# ```{exercise-end}
# ```
#
# ```{solution} ex-see-pairs
# :class: dropdown
# Draw a class with the attribute, one without, and an image of each. Given the classes $a$, $b$, the chance that the first image scores higher is $\mathrm{AUC}_{ab}$, and the mean over $a$ and $b$ is the definition. The ordinary AUC is the mean over all pairs of images; pairs from $a$ and $b$ are $n_a n_b$ of them, a weight that is the same for all if all $n$ are. The bootstrap needs no more than the matrix of $\mathrm{AUC}_{ab}$: to draw classes is to draw its rows and columns.
# ```
#
# ```{exercise-start}
# :label: ex-see-auc
# ```
# Write this chapter's AUC of a probe: for each pair of a class with the attribute and a class without it, the share of pairs of their images in which the first has the higher logit, ties
# counted half; then the mean over the pairs of classes.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-see-auc
# :class: dropdown
# ```
# Large classes count no more than small ones: that is what the mean over pairs of classes does to scikit-learn's AUC, which weighs pairs of images alike.

# %% tags=["exercise"]
import torch


def auc_over_classes(logit, y, has):
    """A share. logit: [n]; y: classes [n]; has: bool [C], which have the attribute."""
    ### BEGIN SOLUTION
    found = []
    for a in y[has[y]].unique():
        for b in y[~has[y]].unique():
            gap = logit[y == a][:, None] - logit[y == b]
            found.append(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())
    return torch.stack(found).mean()
    ### END SOLUTION


# %% tags=["check"]
from sklearn.metrics import roc_auc_score

from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
has_it = torch.tensor([True, False, False, True, False])
y = torch.randint(0, 5, (120,), generator=g).clamp(min=1)  # no image of class 0
logit = (torch.randn(120, generator=g) + has_it[y] + 0.3 * y).round(decimals=1)
pairs = [torch.isin(y, torch.tensor([a, b])) for a in (3,) for b in (1, 2, 4)]
each = [roc_auc_score(has_it[y][pair], logit[pair]) for pair in pairs]
compare("by scikit-learn, pair by pair", auc_over_classes(logit, y, has_it), sum(each) / 3)
two = pairs[0]
yours = auc_over_classes(logit[two], y[two], has_it)
compare("of two classes", yours, roc_auc_score(has_it[y][two], logit[two]))

# %% [markdown]
# ```{solution-end}
# ```
#
# ## Summary
#
# On classes that it has learned from, a probe predicts any attribute, a random one included; only unseen classes tell whether an attribute can be seen, and then there is one value a class, so that intervals must be over classes, and are wide. Accuracy alone shows how rare an attribute is.
# Attributes that are no colour or shape may still be predictable by their company. Invisible attributes do harm recognition of unseen classes, but they harm methods in every space, the relation network no less than DAP. What can be predicted is what a lie must be about to cost anything, and what it can be caught by.
