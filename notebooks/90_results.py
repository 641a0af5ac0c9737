# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Results
#
# Every number here is read from a record in `results/`: one JSON file a run, with its parameters, seed,
# data and split checksums, commit, versions, device and the command that makes it again. Nothing is typed.
#
# :::{admonition} Goals
# :class: tip
# After this page you can
# - say what recognition from the paper's generative model gains over a closed form, and on which data;
# - place a number between chance and a classifier that has labels;
# - find the run behind a number, and do it again.
#
# You need [The zero-shot problem](01_zero_shot_problem) for the metrics, and [Recognition](08_recognition) for the methods.
# :::

# %% tags=["parameters"]
results_dir = "results"  # folder of the records, from the project's root
experiment = "recognition"  # the records to tabulate: a folder of results_dir

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from zsl_lib import plots, record
from zsl_lib.files import project_root

plots.style()
METRICS = ["T1", "AU", "AS", "H"]
records = record.read_records(project_root() / results_dir, experiment)
datasets = sorted(records["dataset"].unique(), key=lambda name: (name != "hangul", name))  # ours first
methods = sorted(records["method"].unique(), reverse=True)
records["dataset"] = pd.Categorical(records["dataset"], datasets)
records = records.sort_values(["dataset", "method", "seed"], ignore_index=True)
print(len(records), "records of", len(datasets), "data sets")

# %% [markdown]
# ## Recognition
#
# Per-class accuracies in per cent, mean ± standard deviation over seeds; the best mean of a data set in bold.
# A method without randomness has one run. *T1*: unseen images among unseen classes. *AU*, *AS*: unseen and
# seen images among all classes; *H*: their harmonic mean. Hyper-parameters were chosen on validation or taken
# from the paper, never on test.

# %% tags=["hide-input"]
groups = ["dataset", "method"]
table = record.summarise(records, METRICS, groups)
means = records.groupby(groups, sort=False, observed=True)[METRICS].mean()
best = means == means.groupby("dataset", observed=True).transform("max")
plots.table(table, best=best)

# %% mystnb={"image": {"alt": "Bars of T1, AU, AS and H for each data set and method, with dots for the single seeds."}} tags=["hide-input"]
long = records.melt(id_vars=groups, value_vars=METRICS, var_name="metric", value_name="accuracy (%)")
fig, axes = plt.subplots(1, len(datasets), figsize=(3 * len(datasets), 3), sharey=True, squeeze=False)
for ax, name in zip(axes.flat, datasets, strict=True):
    part = {"data": long[long["dataset"] == name], "x": "metric", "y": "accuracy (%)", "hue": "method", "ax": ax}
    sns.barplot(**part, hue_order=methods, errorbar=None, legend=name == datasets[0])
    dots = {"dodge": True, "jitter": False, "palette": "dark:0.2", "size": 3}
    sns.stripplot(**part, **dots, hue_order=methods, legend=False)
    ax.set(title=name, xlabel="", ylim=(0, 100))
axes[0, 0].legend(title="", loc="upper left")
plt.show()

# %% [markdown]
# ### How to read it
#
# - These are the book's yardstick and the paper's method at its own settings. All methods of the paper's tables, tuned alike, are on
#   [Paper 1, claim by claim](92_paper1_claims).
# - ABP is ahead of ESZSL in T1, AU and H on every data set here, as it is on the four benchmarks of the paper's
#   Tables 1 and 2.
# - ABP has the paper's settings, 50 epochs among them. They were tuned on nothing here: *selection* is "none".
# - *seconds* in the list of runs is wall time of the whole notebook on a shared machine; `benchmarks/` compares
#   speed.
# - **hangul** is this book's own data; no paper has numbers on it. It shows the *ordering* of methods and the
#   size of their differences where every condition is known.
# - **CUB100** is half of CUB's classes with features of an EfficientNet-Lite0. Its numbers can *not* stand
#   beside a paper's, which are on all 200 classes and ResNet-101 features. ImageNet's training set has bird
#   species that are among CUB's unseen ones, so the backbone is not ignorant of them.
#
# ## Chance and ceiling
#
# For scale: chance on T1, and a softmax that was given labelled images of the unseen classes (cross-validated).
# No zero-shot method gets those.

# %% tags=["hide-input"]
marks = records[records["method"] == "eszsl"].astype({"dataset": str}).set_index("dataset")[["chance", "T1", "ceiling"]]
marks.columns = ["chance", "T1 of ESZSL", "with labels"]
plots.table(marks.rename_axis(None))

# %% [markdown]
# ## Single runs
#
# Each row is a file; pick one and run its command to get it again.

# %% tags=["hide-input"]
runs = records[["file", "seed", *METRICS, "selection", "device", "seconds", "git_commit", "command"]].copy()
runs["git_commit"] = runs["git_commit"].str[:7]
plots.table(runs, index=False)

# %% [markdown]
# ## The published tuning splits
#
# Images of `test_seen_loc`, and the share of it, inside the published `train_loc` and `val_loc` (see
# [The zero-shot problem](01_zero_shot_problem)). On real benchmarks this book tunes on their intersection with
# `trainval_loc`.

# %% tags=["hide-input"]
leaks = record.read_records(project_root() / results_dir, "split_leak")
shown = leaks[["file", "tuning", "leaked", "test_seen", "share"]]
shown.columns = ["file", "train ∪ val", "of these in test_seen", "test_seen", "share (%)"]
plots.table(shown, precision=0, index=False)

# %% [markdown]
# ## The length of the semantics
#
# Sentence embeddings are about twenty times longer than the benchmark's attributes, and the papers do not say what
# is done to them. Below, ABP at the paper's settings after ten epochs, with embeddings as they come (`abp_raw`) and
# brought to length 1 (`abp_unit`, as everywhere else in this book), one seed. Accuracies are on *validation*; the last column is
# the share of the generator's outputs that are 0 for validation classes. A generator whose output ReLUs are all
# dead makes the same feature for every class.

# %% tags=["hide-input"]
lengths = record.read_records(project_root() / results_dir, "semantics_length")
shown = lengths[["file", *METRICS, "zero_outputs"]]
plots.table(shown.rename(columns={"zero_outputs": "zero (%)"}), index=False)

# %% [markdown]
# ## Summary
#
# Synthetic features of ABP recognise unseen classes better than the yardstick in closed form on each data set, and most of all they shrink the bias
# towards seen classes: AU gains more than AS. Between the best of these numbers and a classifier that was given labels there is room left. Long
# semantics must be brought to length 1: as they come, they kill the generator. And a published split is to be checked before anything is tuned on it.
