# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The zero-shot problem
#
# :::{admonition} Goals
# :class: tip
# After this chapter you can
# - say what *seen*, *unseen*, *T1*, *AU*, *AS* and *H* mean, and compute them by hand;
# - read a zero-shot data set and its index sets, and see why the published tuning splits leak;
# - derive ESZSL, a zero-shot recogniser in one closed form, and tune it without touching test data.
#
# You need linear algebra, a little probability and Python.
# :::
#
# A child who knows horses and has been told that a zebra is *a horse with stripes* recognises the first
# zebra it meets. Zero-shot learning asks the same of a machine: recognise classes of which it has never
# seen an image, from a *description* of the class alone.

# %% tags=["parameters"]
dataset = "hangul"  # data set: hangul, CUB, AWA1, AWA2, SUN, APY, FLO, or a folder of yours
semantics = "att"  # class descriptions: att (attributes) or sent (1024-d sentences; CUB, CUB100)
root = ""  # folder of the real benchmarks; empty: the environment's ZSL_DATA_DIR, else data/
seed = 0  # seed of every random draw below; 0 or larger
results_dir = "_build/results"  # where this run's record goes, from the project's root

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve
from sklearn.model_selection import StratifiedKFold, cross_val_score

from zsl_lib import plots, record, tuning
from zsl_lib.classify import SoftmaxClassifier
from zsl_lib.data import load
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.files import project_root
from zsl_lib.metrics import evaluate, harmonic_mean, per_class_accuracy, predict

plots.style()

# %% [markdown]
# ## The data
#
# The book's own data set is **hangul**: letter shapes of Korean syllables in many typefaces (see
# [the data page](../book/data.md)). A syllable is a block of two or three letters, the *jamo*: a first
# consonant, a vowel, and a final consonant or none. So a description of a class is exact, and a reader who
# knows no Korean can check it.

# %%
data = load(dataset, root or None, semantics=semantics, images=dataset == "hangul")
data

# %% mystnb={"image": {"alt": "Three rows of small grey syllable images; within a row the syllable is the same and the typeface changes."}}
if data.images is not None:
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(data.labels == c) for c in (*data.seen[[3, 40]], data.unseen[5])]
    picks = np.concatenate([rng.choice(index, 12, replace=False) for index in of_class])
    plots.image_grid(data.images[torch.from_numpy(picks)], columns=12)

# %% [markdown]
# Two seen classes (upper rows) and an unseen one (lowest row). Each image is one syllable in one typeface.
# The class is what a recogniser must say; the typeface is what it must look through.
#
# ## Semantics: the description of a class
#
# Row $c$ of the matrix $S \in \mathbb R^{C \times K}$ describes class $c$. On hangul it is a one-hot code
# of the three jamo, on CUB the share of annotators who saw each of 312 attributes, or an embedding of
# sentences.

# %%
names = data.attribute_names or [f"dimension {k}" for k in range(data.semantics.shape[1])]
rows = [data.seen[3], data.seen[40], data.unseen[5]]
top = {c: data.semantics[c].topk(3).indices.sort().values for c in rows}
strongest = [", ".join(names[k] for k in top[c]) for c in rows]
classes = [data.class_names[c] for c in rows]
table = pd.DataFrame({"class": classes, "three strongest attributes": strongest})
plots.table(table, index=False)

# %% [markdown]
# Zero-shot recognition works only if the unseen classes are made of parts that the seen classes show.
# Here that can be checked: does each attribute of an unseen class occur in some seen class?

# %%
# NBVAL_CHECK_OUTPUT
used_by_unseen = (data.semantics[data.unseen] != 0).any(0)
known_from_seen = (data.semantics[data.seen] != 0).any(0)
print("attributes that unseen classes use:", int(used_by_unseen.sum()))
print("of these never shown by a seen class:", int((used_by_unseen & ~known_from_seen).sum()))

# %% [markdown]
# ## Index sets: who may see what
#
# A zero-shot data set comes with five index sets. `trainval` is all that training may touch;
# `test_unseen` and `test_seen` are for the final number only; `train` and `val` divide part of `trainval`
# by class, for tuning.

# %%
# NBVAL_CHECK_OUTPUT
sets = ["trainval", "test_seen", "test_unseen", "train", "val"]
sizes = {s: (len(getattr(data, s)), len(data.labels[getattr(data, s)].unique())) for s in sets}
print(pd.DataFrame(sizes, index=["images", "classes"]).T)

# %% [markdown]
# On hangul the test sets also come from font families that no training image uses, so a recogniser cannot
# win by memorising typefaces.

# %% mystnb={"image": {"alt": "A grid of classes against font families, coloured by index set: trainval fills seen classes in training families, the two test sets fill the held-out families."}}
if "family" in data.instances:
    families, column = np.unique(data.instances["family"], return_inverse=True)
    board = np.full((len(data.class_names), len(families)), np.nan)
    for shade, part in enumerate(["trainval", "train", "val", "test_seen", "test_unseen"]):
        index = getattr(data, part).numpy()
        board[data.labels[index].numpy(), column[index]] = shade
    first_part = np.nanmin(np.where(board == 0, np.nan, board), 1)  # train before val before unseen
    by_class = np.argsort(first_part, kind="stable")
    by_family = np.argsort(np.nanmax(board, 0), kind="stable")
    fig, ax = plt.subplots(figsize=(7, 4))
    picture = ax.imshow(board[by_class][:, by_family], aspect="auto", cmap=plt.get_cmap("viridis", 5))
    bar = fig.colorbar(picture, ticks=np.arange(5) * 0.8 + 0.4)
    bar.ax.set_yticklabels(["trainval only", "train", "val", "test_seen", "test_unseen"])
    ax.set(xlabel="font family", ylabel="class", xticks=[])

# %% [markdown]
# ## The published tuning splits leak
#
# The benchmark's files hold `train_loc` and `val_loc` for tuning. In several of them the two contain
# images of `test_seen_loc`: whoever tunes on them, as printed, tunes on the test set. The counts below were
# taken from the published files; each row is a record.

# %%
leaks = record.read_records(project_root() / "results", "split_leak")
table = leaks.set_index("dataset")[["tuning", "leaked", "test_seen", "share"]]
table.columns = ["train ∪ val", "of these in test_seen", "test_seen", "share of test_seen (%)"]
plots.table(table.rename_axis(None), precision=0)

# %% [markdown]
# The cure is one line: intersect both with `trainval`. `data.tuning_split()` does it and returns a data set
# of the same kind, one level down: its unseen classes are the validation classes.

# %%
# NBVAL_CHECK_OUTPUT
tuning_data = data.tuning_split()
test_images = torch.cat([data.test_seen, data.test_unseen])
for part in ("trainval", "test_seen", "test_unseen"):
    shared = torch.isin(getattr(tuning_data, part), test_images).sum()
    print(f"{part:12} {len(getattr(tuning_data, part)):5} images, {shared} of them test images")


# %% [markdown]
# How much can a leak be worth? Train a linear classifier on the seen classes with and without the leaked
# images and look at the accuracy on seen test images.

# %%
def seen_accuracy(index):
    """Per-class accuracy on test_seen of a softmax trained on the images at index."""
    x, y = scaled.features.numpy(), scaled.labels.numpy()
    model = SoftmaxClassifier(seed=seed).fit(x[index], y[index])
    said = torch.from_numpy(model.predict(x[data.test_seen]))
    return per_class_accuracy(data.labels[data.test_seen], said)


scaled = data.scaled()  # features in [0, 1] on trainval, semantics of one length
half_leaked = torch.cat([data.trainval, data.test_seen[::2]])
honest, leaky = seen_accuracy(data.trainval), seen_accuracy(half_leaked)
print(f"seen accuracy, honest: {honest:.1f} %")
print(f"with half of test_seen leaked into training: {leaky:.1f} %")

# %% [markdown]
# The second number is worth nothing: it is partly an accuracy on training images.
#
# ## Metrics
#
# Accuracy is averaged **per class**, so that a class with many images does not drown the others:
#
# $$
# \mathrm{acc}(\mathcal Y) = \frac{1}{|\mathcal Y|}\sum_{c\in\mathcal Y}
# \frac{\#\{\text{images of } c \text{ predicted } c\}}{\#\{\text{images of } c\}} .
# $$ (eq-per-class)
#
# - **T1**: unseen test images, the candidates are the unseen classes.
# - **AU** and **AS**: unseen and seen test images, the candidates are *all* classes (the *generalised* task).
# - **H** $= 2\,\mathrm{AS}\,\mathrm{AU}/(\mathrm{AS}+\mathrm{AU})$, which is high only if both are.
#
# By hand: three images of class 0, of which two are right, and one of class 1, which is wrong.

# %%
# NBVAL_CHECK_OUTPUT
truth, said = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0])
print(f"per class: ({200 / 3:.1f} + 0.0) / 2 = {per_class_accuracy(truth, said):.1f} %")
print(f"per image: {100 * (truth == said).double().mean():.1f} %")
print(f"H of AS = 90 and AU = 10: {harmonic_mean(90, 10):.1f}, while their mean is 50")


# %% [markdown]
# ## ESZSL: a yardstick in closed form
#
# Score an image $x$ against a class $c$ by a bilinear form $x^\top V s_c$. ESZSL
# {cite}`romera2015eszsl` asks that the score of the right class be $+1$ and of the others $-1$. With
# features $X \in \mathbb R^{n\times D}$, seen semantics $S$ and targets $Y \in \{\pm1\}^{n\times C}$ it minimises
#
# $$
# J(V) = \|XVS^\top - Y\|^2 + \gamma\|VS^\top\|^2 + \lambda\|XV\|^2 + \gamma\lambda\|V\|^2 .
# $$ (eq-eszsl)
#
# Set the gradient to zero:
#
# $$
# X^\top(XVS^\top - Y)S + \gamma VS^\top S + \lambda X^\top XV + \gamma\lambda V = 0 .
# $$
#
# The terms in $V$ are a product, $(X^\top X + \gamma I)\,V\,(S^\top S + \lambda I)$, hence
#
# $$
# V = (X^\top X + \gamma I)^{-1}\, X^\top Y S\, (S^\top S + \lambda I)^{-1} .
# $$ (eq-eszsl-solution)

# %%
def eszsl(X, Y, S, gamma, lam):
    """Eq. of V above, by two solves with symmetric positive definite matrices."""
    left = solve(X.T @ X + gamma * np.eye(X.shape[1]), X.T @ Y @ S, assume_a="pos")
    return solve(S.T @ S + lam * np.eye(S.shape[1]), left.T, assume_a="pos").T


# %% [markdown]
# Check the derivation: at this $V$ the gradient of {eq}`eq-eszsl`, taken by autograd, must vanish.

# %%
# NBVAL_CHECK_OUTPUT
X = scaled.features[data.trainval].double()
S = scaled.semantics[data.seen].double()
Y = 2.0 * (data.labels[data.trainval][:, None] == data.seen).double() - 1
V = torch.from_numpy(eszsl(X.numpy(), Y.numpy(), S.numpy(), gamma=10.0, lam=1.0)).requires_grad_()
J = (X @ V @ S.T - Y).square().sum() + 10 * (V @ S.T).square().sum()
J = J + (X @ V).square().sum() + 10 * V.square().sum()
(gradient,) = torch.autograd.grad(J, V)
relative = gradient.norm() / (X.T @ Y @ S).norm()
print("gradient at V, relative to X'YS, below 1e-9:", bool(relative < 1e-9))
library = ESZSL(gamma=10.0, lam=1.0).fit(scaled)
same = torch.allclose(library.V, V.detach(), rtol=1e-8)
print("the library's ESZSL is this function:", same)

# %% [markdown]
# ### Tune on validation, test once
#
# Both ridge weights are chosen on validation *classes*, by T1.

# %%
grid = {"gamma": [10.0**k for k in range(-2, 5)], "lam": [10.0**k for k in range(-3, 3)]}
tried = tuning.search(ESZSL, grid, scaled)
best = {key: tried.loc[0, key].item() for key in grid}
print("best on validation:", best)
plots.table(tried.head(3), formats=dict.fromkeys(grid, "{:g}"), index=False)

# %%
watch = record.Stopwatch()
model = ESZSL(**best).fit(scaled)
result = evaluate(model, scaled)
print({k: round(v, 1) for k, v in result._asdict().items()})

# %% [markdown]
# ### What the numbers are worth
#
# Two marks help: *chance*, and a *ceiling*: what a linear classifier reaches on the unseen classes when it is
# given real labelled images of them (five-fold cross-validation on `test_unseen`). No zero-shot method gets
# those images.

# %%
unseen_x, unseen_y = scaled.features[data.test_unseen], data.labels[data.test_unseen]
folds = StratifiedKFold(5, shuffle=True, random_state=seed)
judge = SoftmaxClassifier(epochs=100, seed=seed)
ceiling = (
    100
    * cross_val_score(judge, unseen_x.numpy(), unseen_y.numpy(), cv=folds, scoring="balanced_accuracy").mean()
)
chance = 100 / len(data.unseen)
print(f"T1: chance {chance:.1f}, ESZSL {result.T1:.1f}, with labels {ceiling:.1f} %")

# %% [markdown]
# ESZSL sits far above chance and far below what the features allow. The gap is the room for the methods of
# this book.
#
# Now the generalised task. Where do the unseen images go?

# %% mystnb={"image": {"alt": "Two-by-two heat map of truth against prediction, in per cent: most unseen images are assigned to seen classes."}}
everything = torch.cat([data.seen, data.unseen]).sort().values
shares = []
for part in (data.test_seen, data.test_unseen):
    said = predict(model, scaled.features[part], scaled.semantics, everything)
    to_unseen = 100 * torch.isin(said, data.unseen).double().mean().item()
    shares.append([100 - to_unseen, to_unseen])
fig, ax = plt.subplots(figsize=(2.6, 2.6))
plots.transition_matrix(shares, ax)

# %% [markdown]
# More than half of the unseen images are taken for seen classes: the scores were fitted to make *seen* classes right. This
# bias, more than lost recognition, makes AU and H small. [Recognition from synthetic features](08_recognition)
# attacks it by giving the unseen classes training examples.
#
# ## Exercises
#
# ```{exercise-start}
# :label: ex-zsp-columns
# ```
# The first attributes on hangul are the initial consonants. Set the columns of one kind of jamo (initial,
# medial or final) to zero and fit ESZSL again. Which kind does T1 need most, and can you say why?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-zsp-columns
# :class: dropdown
# ```

# %%
from dataclasses import replace

kinds = [name.split()[0] for name in names]
for kind in sorted(set(kinds)) if dataset == "hangul" else []:
    blind = data.semantics.clone()
    blind[:, [k for k, name in enumerate(kinds) if name == kind]] = 0
    blinded = replace(scaled, semantics=blind)
    print(f"without {kind:8} T1 = {evaluate(ESZSL(**best).fit(blinded), blinded).T1:.1f} %")

# %% [markdown]
# Each jamo left out merges classes that differ in it alone, and takes from the rest the help of one part.
# ```{solution-end}
# ```
#
# ```{exercise}
# :label: ex-zsp-metric
# Give labels and predictions for which the accuracy per image is above 90 % and {eq}`eq-per-class` is below
# 55 %. Which of the two would a careless recogniser that always says the largest class win?
# ```
#
# ```{solution} ex-zsp-metric
# :class: dropdown
# 95 images of class 0, all right, and 5 of class 1, all wrong: 95 % per image, 50 % per class. Saying the
# largest class wins the first and gets $1/C$ in the second.
# ```
#
# ```{exercise}
# :label: ex-zsp-harmonic
# A recogniser has AS = 90 %. Which AU does it need for H = 60 %? Show that H is never above twice the smaller of the two,
# and say what a mean $(\mathrm{AU}+\mathrm{AS})/2$ would reward.
# ```
#
# ```{solution} ex-zsp-harmonic
# :class: dropdown
# $H = 2\,\mathrm{AU}\,\mathrm{AS}/(\mathrm{AU}+\mathrm{AS})$ gives $\mathrm{AU} = H\,\mathrm{AS}/(2\,\mathrm{AS} - H) = 60\cdot90/120 = 45$ %.
# As $\max/(\mathrm{AU}+\mathrm{AS})\le1$, $H = 2\min\cdot\max/(\mathrm{AU}+\mathrm{AS})\le2\min$. The mean of 90 % and 0 % is 45 %: a recogniser that
# never says an unseen class would look half good, and H gives it 0.
# ```
#
# ```{exercise-start}
# :label: ex-zsp-metrics
# ```
# Write AU, AS and H yourself. With $\mathcal Y$ the classes of one side, unseen or seen, and $\hat y_i$ what was said among *all* classes,
#
# $$
# A = \frac{1}{|\mathcal Y|}\sum_{c\in\mathcal Y}\frac{\#\{i : y_i = c,\ \hat y_i = c\}}{\#\{i : y_i = c\}},\qquad
# H = \frac{2\,\mathrm{AU}\,\mathrm{AS}}{\mathrm{AU} + \mathrm{AS}},
# $$
#
# as shares. Classes without an example do not count.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-zsp-metrics
# :class: dropdown
# ```
# The mean over classes comes last: each class brings one number, however many examples it has.

# %% tags=["exercise"]
import torch


def au_as_h(y, said, unseen):
    """AU, AS and H of labels y [n] and predictions [n]; unseen: classes [u]."""
    ### BEGIN SOLUTION
    shares = {True: [], False: []}
    for c in y.unique():
        right = (said[y == c] == c).double().mean()
        shares[bool((unseen == c).any())].append(right)
    AU, AS = (torch.stack(shares[side]).mean() for side in (True, False))
    return AU, AS, 2 * AU * AS / (AU + AS)
    ### END SOLUTION


# %% tags=["check"]
from scipy.stats import hmean
from sklearn.metrics import recall_score

from zsl_lib.exercises import compare

g = torch.Generator().manual_seed(0)
y = torch.randint(0, 8, (300,), generator=g) ** 2 // 7  # classes of unequal size
said = torch.where(torch.rand(300, generator=g) < 0.6, y, y.flip(0))
new = torch.tensor([1, 3, 7])
old = y.unique()[~torch.isin(y.unique(), new)]
AU, AS, H = au_as_h(y, said, new)
recall = [recall_score(y, said, labels=part, average="macro") for part in (new, old)]
compare("AU, by scikit-learn's recall", AU, recall[0])
compare("AS, by scikit-learn's recall", AS, recall[1])
compare("H, by SciPy's harmonic mean", H, hmean(recall))

# %% [markdown]
# ```{solution-end}
# ```
#
# ## The record of this run
#
# Every table of the book is made from files like the one written here.

# %%
parameters = {"dataset": dataset, "semantics": semantics, "seed": seed}
path = watch.record(
    "recognition",
    data,
    "eszsl",
    seed=seed,
    parameters=parameters | best,
    metrics=result._asdict() | {"chance": chance, "ceiling": ceiling},
    selection="validation",
    semantics=semantics,
    command=record.papermill_command("01_zero_shot_problem", parameters),
).write(project_root() / results_dir)
print(f"written: {path.parent.name}/{path.name} in {results_dir}")

# %% [markdown]
# ## Summary
#
# Zero-shot recognition describes classes by semantics, learns on seen classes and is judged on unseen ones
# (T1) or on both (AU, AS, H), per class. Tuning must stay inside `trainval`, which the published
# `train_loc` and `val_loc` do not. A bilinear closed form already recognises unseen classes well above
# chance, and shows the bias towards seen classes that the generative methods of this book set out to remove.
