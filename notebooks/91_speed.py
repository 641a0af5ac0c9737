# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speed
#
# How fast is the library's ABP, next to what one writes first, next to the released program's order of work, and next to
# what the machine allows? And what do closed forms, recognition among many classes, features on disk, the relation network and training against attacks cost? `make bench` measures all of it and writes records; this page reads them.
# Machines are noisy, so look at the ratios: each is taken between neighbours in time, and has its quartiles.
#
# :::{admonition} Goals
# :class: tip
# After this page you can
# - say where the time of a learning step goes, and which part of it can be saved;
# - compare a program with the floor that arithmetic and memory traffic set;
# - say what grows with the number of classes and of examples, and what does not;
# - choose a scheme of adversarial training by what its robustness costs.
#
# You need [Alternating back-propagation](05_alternating_backprop), [the relation network](20_relation_network) and
# [adversarial training](23_adversarial_training) for what is timed here.
# :::

# %% tags=["parameters"]
results_dir = "results"  # folder of the records, from the project's root

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from zsl_lib import paper, plots, record
from zsl_lib.embedding import available
from zsl_lib.files import project_root

plots.style()
folder = project_root() / results_dir
LOOPS = {"released": "released", "plain": "plain", "library": "library", "library_bf16": "bfloat16"}
speed = record.read_records(folder, "speed")
speed["loop"] = pd.Categorical(speed["method"].map(LOOPS), list(LOOPS.values()))
speed = speed.sort_values(["device", "dataset", "loop"], ignore_index=True)
for device, part in speed.groupby("device"):
    rates = part.dropna(subset="gb_per_s").iloc[0]
    print(f"{device}, torch {rates['versions']['torch']}: float32 {rates['gflops_float32']:.0f} GFLOP/s,")
    print(f"  bfloat16 {rates['gflops_bfloat16']:.0f} GFLOP/s, memory {rates['gb_per_s']:.0f} GB/s")


# %% [markdown]
# ## One visit of a batch
#
# 64 examples: ten Langevin steps, and one learning step with Adam.
#
# - **released**: the released program's order of work: twice, a learning step and five inference steps, each of them a whole backward pass
#   through the network, weights included.
# - **plain**: Eq. 6 and 8 as one writes them first; its ten inference steps are whole backward passes too.
# - **library**: only the gradient of $z$, by hand, with $c$'s share of the hidden layer computed once.
# - **bfloat16**: the library's same loop with the two large products of an inference step in bfloat16. Learning stays in
#   float32.
#
# *× library* is time over that of the library in float32, *× bfloat16* over that of the last row. *MB* is the peak memory above a process that
# only imports. CUB size is 322→4096→2048, hangul size 78→1024→128.

# %% tags=["hide-input"]
def spread(frame, name, digits):
    """Median [quartiles] as text."""
    parts = frame[f"{name}_low"], frame[name], frame[f"{name}_high"]
    return [f"{m:.{digits}f} [{lo:.{digits}f}–{hi:.{digits}f}]" for lo, m, hi in zip(*parts, strict=True)]


table = pd.DataFrame(
    {
        "size": speed["dataset"].str.replace("_size", ""),
        "loop": speed["loop"].astype(str),
        "ms": spread(speed, "ms", 0),
        "× library": spread(speed, "times_library", 1),
        "× bfloat16": spread(speed, "times_library_bf16", 1),
        "MB": speed["peak_mb"].map("{:.0f}".format),
    }
)
plots.table(table, index=False)

# %% [markdown]
# ## The floor
#
# No program of this method is faster than its arithmetic and its memory traffic. With $B$ examples, $H$ hidden units and $P$
# weights, a visit needs
#
# $$
# \underbrace{\frac{2l \cdot 2BHD}{r_{\text{inference}}}}_{\text{two products a step}}
# + \underbrace{\frac{3\cdot 2BHD + 2\cdot 2BH(K+d)}{r_{32}}}_{\text{learning}}
# + \underbrace{\frac{28\,P\ (+\,6\,P)}{\text{bandwidth}}}_{\text{Adam (and the copy)}}
# $$
#
# The rates $r$ are the best seen on a square product of 2,048, the bandwidth is that of a copy of 256 MB, both in the same run. Adam reads a
# weight, its gradient and two moments, and writes three of them: 28 bytes. All in milliseconds:

# %% tags=["hide-input"]
own = speed.dropna(subset="floor")
floors = pd.DataFrame(
    {
        "size": own["dataset"].str.replace("_size", ""),
        "loop": own["loop"].astype(str),
        "inference": own["floor_inference"],
        "learning": own["floor_learning"],
        "memory": own["floor_memory"],
        "floor": own["floor"],
        "measured": own["ms"],
        "× floor": own["ms"] / own["floor"],
    }
)
plots.table(floors, index=False)

# %% [markdown]
# ## How it grows
#
# The library in bfloat16: one visit against the size of the batch and the width of the network (CUB size otherwise), and the time of several seeds *stacked into
# one network* over that of one (`zsl_lib.learn.ensemble.fit_seeds`). Dotted: as many runs one after the other.

# %% mystnb={"image": {"alt": "Left and middle: time of a visit against batch size and width. Right: time of several stacked seeds over one seed's, for both sizes, with the line of runs one after the other."}} tags=["hide-input"]
grown = record.read_records(folder, "speed_scaling")
grown[["what", "n"]] = grown["method"].str.split("_", expand=True)
grown = grown.astype({"n": int}).sort_values("n")
fig, axes = plt.subplots(1, 3, figsize=(9, 3))
for ax, what, label in zip(axes, ("batch", "hidden"), ("examples in a batch", "hidden units"), strict=False):
    for name, part in grown[grown["what"] == what].groupby("dataset"):
        bars = [part["ms"] - part["ms_low"], part["ms_high"] - part["ms"]]
        ax.errorbar(part["n"], part["ms"], yerr=bars, marker="o", ms=4, label=name)
    ax.set(xscale="log", ylim=(0, None), xlabel=label, ylabel="ms a visit")
    ax.set_xticks(part["n"], part["n"], minor=False)
    ax.minorticks_off()
for (name, part), marker in zip(grown[grown["what"] == "seeds"].groupby("dataset"), "osDv", strict=False):
    bars = [part["times_one"] - part["times_one_low"], part["times_one_high"] - part["times_one"]]
    axes[2].errorbar(part["n"], part["times_one"], yerr=bars, marker=marker, ms=4, label=name.replace("_", " "))
axes[2].plot([1, 10], [1, 10], color="grey", ls=":")
axes[2].set(xlabel="seeds at once", ylabel="× one seed's time")
axes[2].legend()
plt.show()

# %% [markdown]
# ## Time to a T1
#
# Training seconds on hangul's tuning split (1,024 hidden units, evaluation not counted) until T1 on validation is 95 % of what the library has after 15
# epochs. *Plain* and *library* do the same steps; the released program has its own learning rate and its own latents.

# %% tags=["hide-input"]
goal = record.read_records(folder, "speed_to_t1")
goal["loop"] = pd.Categorical(goal["method"].map(LOOPS), list(LOOPS.values()))
groups = goal.groupby("loop", observed=True)
rows = {
    "seconds": groups["training_seconds"].agg(record.mean_sd),
    "epochs": groups["epochs"].agg(record.mean_sd),
    "reached": groups["reached"].sum().astype(int).astype(str) + " of " + groups.size().astype(str),
}
plots.table(pd.DataFrame(rows).reset_index().astype({"loop": str}), index=False)

# %% [markdown]
# ## Closed forms
#
# ESZSL, SAE and GFZSL are functions of sums over images, and the library adds these up block by block
# (`zsl_lib.embedding.moments`): images may come from a file that is larger than memory. *One shot* is the form that one
# writes first, on all images in float64 at once; SAE's by SciPy's Sylvester solver. Random data of the size of CUB, AWA2 and
# ImageNet; of ImageNet's 1.28 million images *rows* were measured. *Sums* is the part of a fit that grows with the images (timed
# on its own, so that noise may put it above the whole). *× blocks* is the time of one shot over that from blocks, for
# learning and for scores. *MB* is memory above the data's.

# %% tags=["hide-input"]
forms = record.read_records(folder, "speed_compatibility")
forms[["name", "form"]] = forms["method"].str.split("_", n=1, expand=True)
forms["size"] = forms["dataset"].str.removesuffix("_size")
forms["rows"] = [p["rows"] for p in forms["parameters"]]
wide = forms.pivot(index=["rows", "size", "name"], columns="form").sort_index()
table = pd.DataFrame(
    {
        "fit, s": wide["fit_ms", "blocks"] / 1000,
        "sums, s": wide["sum_ms", "blocks"] / 1000,
        "× blocks": wide["fit_times_blocks", "one_shot"],
        "score × blocks": wide["score_times_blocks", "one_shot"],
        "MB": wide["peak_mb", "blocks"],
        "MB, one shot": wide["peak_mb", "one_shot"],
    }
)
table = table.rename(index=lambda name: available()[name].NAME if name in available() else name)
for part in (p for p in forms.to_dict("records") if p["form"] == "blocks" and p["parameters"]["images"] > p["rows"]):
    images, solve = part["parameters"]["images"], part["fit_ms"] - part["sum_ms"]
    seconds = (part["sum_ms"] * images / part["rows"] + max(solve, 0)) / 1000
    print(f"{available()[part['name']].NAME}, all {images:,} images: {seconds / 60:.1f} minutes")
plots.table(table.reset_index(), formats={"MB": "{:.0f}", "MB, one shot": "{:.0f}"}, index=False)

# %% [markdown]
# No form builds a matrix of images by images. From blocks, the memory depends on the widths and not on the number of images, and only
# the sums take longer with more of them.

# %% [markdown]
# (speed-scale)=
# ## Many classes
#
# **What does recognition among ImageNet's 21,000 classes take?** `zsl_lib.scale` draws synthetic features block by block and never holds them all ([how to use it](many-classes)). Time and memory against the
# number of classes, all of them candidates, for each of its classifiers and for the recogniser that holds all features, up to a size that it does not mind:
#
# - **exact**: k-NN by cosine, one pass over all features when it is asked.
# - **FAISS**: an index of cells with a byte an entry; *probes* are the cells that are searched. Its recall is the share of the exact k neighbours that it finds.
# - **prototypes**: the nearest mean. **softmax**: some steps are measured; *fit* is the time of a step times the steps of all epochs, so there is no T1.
# - **all held**: scikit-learn's k-NN on all features at once.
#
# A network of random weights stands for a trained generator; its classes come in families and overlap, so T1 tells the classifiers apart and says nothing of a data set. *Ask* is the time for all queries. *MB* is peak memory above
# what network, descriptions and queries take; *KB a class* the slope of a straight line through all sizes.

# %% tags=["hide-input"]
import numpy as np

CLASSIFIERS = {"exact": "exact", "faiss": "FAISS", "prototypes": "prototypes", "softmax": "softmax", "held": "all held"}
scale = record.read_records(folder, "speed_scale")
many = scale[scale["dataset"].str.startswith("classes_")].copy()
many["classes"] = [p["classes"] for p in many["parameters"]]
many["classifier"] = pd.Categorical(many["method"].map(CLASSIFIERS), list(CLASSIFIERS.values()))
many = many.sort_values(["classifier", "classes"], ignore_index=True)
given = many.iloc[0]["parameters"]
probes = sorted(int(name.split("_")[1]) for name in many if name.startswith("recall_"))
for name, last in (("ask_ms", f"ask_ms_{probes[-1]}"), ("T1", f"T1_{probes[-1]}")):
    many[name] = many[name].fillna(many[last])


def slope(x, y):
    """Of the line of least squares; NaN for a single point."""
    return np.polyfit(x, y, 1)[0] if len(x) > 1 else float("nan")


def shown(values, digits=1):
    """As text; a dash where there is no value."""
    return ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in values]


slopes = {name: 1024 * slope(part["classes"], part["peak_mb"]) for name, part in many.groupby("classifier", observed=True)}
print(f"{many.loc[0, 'device']}; the processor's time where it has one thread")
print(f"{given['samples']} features a class of {given['feature_dim']:,} entries, k = {given['k']}, {given['queries']} queries, blocks of {given['block']:,}; FAISS with {probes[-1]} probes")
table = pd.DataFrame(
    {
        "classifier": many["classifier"].astype(str),
        "classes": many["classes"].map("{:,}".format),
        "features, GB": many["classes"] * given["samples"] * given["feature_dim"] * 4 / 1e9,
        "fit, s": shown(many["fit_ms"] / 1000),
        "ask, s": shown(many["ask_ms"] / 1000, 2),
        "MB": many["peak_mb"],
        "KB a class": shown(many["classifier"].astype(str).map(slopes)),
        "recall, %": shown(many[f"recall_{probes[-1]}"]),
        "T1, %": shown(many["T1"]),
    }
)
plots.table(table, formats={"features, GB": "{:.2f}", "MB": "{:.0f}"}, index=False)

# %% mystnb={"image": {"alt": "Three panels. Time to fit and ask, and peak memory, against the number of classes, one line a classifier; exact neighbours have level memory. Recall of FAISS against time to ask, one line a number of classes, a point for each number of probes."}} tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for (name, part), marker in zip(many.groupby("classifier", observed=True), "osDv^", strict=False):
    total = (part["fit_ms"].fillna(0) + part["ask_ms"]) / 1000
    axes[0].plot(part["classes"], total, marker=marker, ms=4, label=name)
    axes[1].plot(part["classes"], part["peak_mb"], marker=marker, ms=4)
axes[0].set(xscale="log", yscale="log", xlabel="classes", ylabel="s to fit and ask")
axes[1].set(xscale="log", yscale="log", xlabel="classes", ylabel="MB")
axes[0].legend()
searched = many[many["method"] == "faiss"]
for (_, row), marker in zip(searched.iterrows(), "osDv^", strict=False):
    axes[2].plot([row[f"ask_ms_{n}"] / 1000 for n in probes], [row[f"recall_{n}"] for n in probes], marker=marker, ms=4, label=f"{row['classes']:,}")
axes[2].set(xscale="log", ylim=(0, 102), xlabel="s to ask", ylabel="recall, %")
axes[2].legend(title=f"classes; {', '.join(map(str, probes))} probes")
plt.show()

# %% tags=["hide-input"]
WIDE = 4 * given["feature_dim"] / 1024  # KB of a feature
most = many[many["classes"] == many["classes"].max()].set_index("method")
exact, index = most.loc["exact"], most.loc["faiss"]
print(f"{exact['classes']:,} classes, all features {1e3 * table['features, GB'].max():,.0f} MB:")
print(f"  exact neighbours take {exact['peak_mb']:.0f} MB and {exact['ask_ms'] / 1000:.0f} s; with 300 features a class it would be {300 / given['samples'] * exact['ask_ms'] / 6e4:.0f} minutes")
print(f"  the softmax {most.loc['softmax', 'fit_ms'] / 3.6e6:.1f} hours")
print(f"KB a class as counted: prototypes {2 * WIDE:.0f} (a sum and a mean), softmax {4 * WIDE:.0f} (weights, gradient, two moments),")
print(f"  FAISS {given['samples'] * WIDE / 4:.0f} (a byte an entry), all held at least {given['samples'] * WIDE:.0f}")
print(f"FAISS is asked in {exact['ask_ms'] / index['ask_ms']:.1f} times less time than a pass takes, after a fit of {index['fit_ms'] / exact['ask_ms']:.1f} passes")

# %% [markdown]
# - **Exact neighbours need no memory that grows with the features.** They are drawn, compared and forgotten; the time is that of drawing them, and grows in proportion.
# - **Prototypes** keep a row a class and take the same pass once. Here, where a class is one cloud, they are also right more often than k-NN.
# - **The softmax** is the one that does not scale: more classes mean more features and more scores for each, so its time grows with the square. The paper's number of epochs is out of reach of a CPU at this size.
# - **FAISS** pays off where queries come again and again. Its memory grows with the features, at a quarter of their size. With more classes the same probes are a smaller part of the cells, so recall falls, and T1 by more than recall: the neighbours that are missed are not a random part of all.
#
# ## Features on disk
#
# **Does a data set have to fit into memory?** A folder with features in `.npy` and a `dataset.toml` is read by `load`, which looks at every entry once; `observed_range()` finds the least and the largest value of `trainval`, and
# `scaled(file)` writes scaled features into a second file. The three steps come one after the other. *MB* is the most memory until the end of a step, mapped files left out: the system takes their pages back when it needs the room. *Bytes an example* is the slope of a straight line through all sizes.

# %% tags=["hide-input"]
STEPS = {"load": "load", "range": "observed_range", "scale": "scaled, to a file"}
disk = scale[scale["dataset"].str.startswith("examples_")].copy()
disk["N"] = [p["examples"] for p in disk["parameters"]]
disk["step"] = pd.Categorical(disk["method"].map(STEPS), list(STEPS.values()))
disk = disk.sort_values(["step", "N"], ignore_index=True)
width = disk.iloc[0]["parameters"]["feature_dim"]
grown = {name: slope(part["N"], part["peak_mb"] * 2**20) for name, part in disk.groupby("step", observed=True)}
table = pd.DataFrame(
    {
        "step": disk["step"].astype(str),
        "N": disk["N"].map("{:,}".format),
        "features, GB": disk["N"] * width * 4 / 1e9,
        "s": disk["ms"] / 1000,
        "MB": disk["peak_mb"],
        "bytes an example": disk["step"].astype(str).map(grown),
    }
)
plots.table(table, formats={"features, GB": "{:.2f}", "MB": "{:.0f}", "bytes an example": "{:.0f}"}, index=False)

# %% mystnb={"image": {"alt": "Peak memory against the number of examples for the three steps, nearly level, and a dotted line for the size of the features, which rises far above them."}} tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3))
for (name, part), marker in zip(disk.groupby("step", observed=True), "osD", strict=False):
    ax.plot(part["N"], part["peak_mb"], marker=marker, ms=4, label=name)
sizes = np.sort(disk["N"].unique())
ax.plot(sizes, sizes * width * 4 / 2**20, color="grey", ls=":", label="the features")
ax.set(xscale="log", yscale="log", xlabel="examples", ylabel="MB")
ax.legend()
plt.show()
print(f"a feature takes {4 * width:,} bytes; the steepest line has {max(grown.values()):.0f} bytes an example, {100 * max(grown.values()) / (4 * width):.1f} % of that")

# %% [markdown]
# It does not: what grows with the examples are labels and index sets, 8 bytes a number, and the checks that sort them. A learner that wants all of `trainval` at once, as ABP does, needs room for these features; the closed forms above take them in blocks.
#
# ## The relation network's first layer, split
#
# **Does it pay to take Eq. 1 of paper 2 apart?** The first layer on a concatenation is $W_f f_i + W_g g_j + b$. *Concatenations* multiplies out all $nC$
# pairs, *split* each image and each description once ([the relation network](20_relation_network)). A batch of images is compared with all classes; *score* is that alone, *step* that with the gradient of
# both embeddings and all weights. *×* is the time over that of the split, *count* the same ratio in multiplications of *score*, $\frac{2nCdH + nCH}{(n+C)dH + nCH}$. *MB* is the peak
# memory of a step above that of a process that only imports and makes the embeddings.

# %% tags=["hide-input"]
pairs = record.read_records(folder, "speed_relation")
pairs = pairs.join(pd.DataFrame(list(pairs["parameters"]))[["images", "classes", "embedding", "hidden"]])
pairs["form"] = pd.Categorical(pairs["method"], ["split", "concatenations"])
pairs = pairs.sort_values(["classes", "form"], ignore_index=True)
n, c, d = pairs["images"], pairs["classes"], pairs["embedding"]
rows = pd.DataFrame({"split": (n + c) * d + n * c, "concatenations": 2 * n * c * d + n * c})
count = [rows.loc[i, form] / rows.loc[i, "split"] for i, form in enumerate(pairs["method"])]
table = pd.DataFrame(
    {
        "size": pairs["dataset"].str.removesuffix("_size"),
        "classes": c,
        "form": pairs["method"],
        "count": [f"{value:.0f}" for value in count],
        "score, ms": pairs["score_ms"].map("{:.1f}".format),
        "score, ×": spread(pairs, "score_times_split", 1),
        "step, ms": pairs["step_ms"].map("{:.0f}".format),
        "step, ×": spread(pairs, "step_times_split", 1),
        "MB": pairs["peak_mb"].map("{:.0f}".format),
    }
)
plots.table(table, index=False)

# %% tags=["hide-input"]
whole = pairs[pairs["form"] == "concatenations"].set_index("dataset")
parts = pairs[pairs["form"] == "split"].set_index("dataset")
memory = whole["peak_mb"] / parts["peak_mb"]
score, step = whole["score_times_split"], whole["step_times_split"]
print(f"faster: {score.min():.0f} to {score.max():.0f} times for scores, {step.min():.0f} to {step.max():.0f} for a step;")
print(f"less memory: {memory.min():.1f} to {memory.max():.1f} times")

# %% [markdown]
# It does, by less than the count. What both forms have in common, the hidden layer of all pairs, its ReLU and the product with $v$, is few multiplications and much memory traffic, which the count does not see.
#
# ## What adversarial training costs
#
# **How much longer does training take with an attack in it?** §5.4 of paper 2 says that the added overhead "can be neglected". Its Table 10, in per cent of the sum of the parts, beside Algorithm 1 here (the
# clean gradient not reused, so that the parts are the paper's). *Hangul* is the small residual network with 64 letters, *ResNet34* the paper's network with 8 random photographs of 224 × 224.
# The paper does not say what an iteration is; here it is one batch.

# %% tags=["hide-input"]
PARTS = {"forward": "forward (clean)", "search": "search", "forward_attacked": "forward (attacked)", "backward": "backward"}
NAMES = {"hangul_size": "hangul", "resnet34_size": "ResNet34"}
cost = record.read_records(folder, "speed_adversarial")
device, torch_version = cost.loc[0, "device"], cost.loc[0, "versions"]["torch"]
print(f"{device}, torch {torch_version}; the time that the processor gave to the work")
printed = paper.iteration_seconds()
printed.index = [f"paper: {name}, {attack}s" for name, attack in printed.index]
ours = cost[cost["method"].str.startswith("parts")].sort_values(["dataset", "method"])
ours.index = [f"here: {NAMES[row.dataset]}, N = {row.method.split('_')[1]}" for row in ours.itertuples()]
ours = ours.rename(columns={"forward_clean_ms": "forward"} | {f"{part}_ms": part for part in [*PARTS, "optimiser"]})
both = pd.concat([printed, ours[[*PARTS, "optimiser"]] / 1000])
total = both[[*PARTS, "optimiser"]].sum(axis=1)
shares = 100 * both[[*PARTS, "optimiser"]].div(total, axis=0)
shares = shares.rename(columns=PARTS)
shares["sum, s"] = [f"{value:.0f}" if value >= 10 else f"{value:.2f}" for value in total]
shares["printed total, s"] = ["" if pd.isna(value) else f"{value:.0f}" for value in both["total"]]
shares["optimiser"] = ["" if pd.isna(value) else f"{value:.1f}" for value in both["optimiser"] / total * 100]
shares["search / forward"] = both["search"] / both["forward"]
plots.table(shares)

# %% tags=["hide-input"]
images = [row for row in shares.index if row.startswith("paper") and row.endswith("images")]
added = (both["total"] / (both["forward"] + both["backward"] / 2))[images]
print("The paper's own figures: sums of parts miss the totals by", end=" ")
print(", ".join(f"{value:.0f} s" for value in (both["total"] - total)[printed.index]) + ";")
print(f"training against attacks on images takes {added.min():.1f} to {added.max():.1f} times as long as clean training,")
print("if half of the backward pass is the clean term's.")

# %% [markdown]
# Nothing to neglect. A step of the search goes forward once and back to the pixels once, which is two forward passes by the count and somewhat more here. The paper's search takes as long as
# about ten forward passes: too many for the $N = 3$ of its §4.3, too few for the $N = 9$ of its §5.4.
#
# **Count first, then measure.** A forward pass is 1, the gradient in the activations 1, that in the weights 1. Clean training costs 3, a step of the search 2
# ([derived here](23_adversarial_training)). Every scheme, each between two clean iterations:
#
# - *count*: the ratio to clean training that follows; *off* is by how many per cent the measured ratio is away from it.
# - *from passes*: the ratio that follows if a step costs not $\frac23$ of a clean iteration but what one was measured to cost, in the same run.

# %% tags=["hide-input"]
SCHEMES = {
    "clean": "clean (α = 1)",
    "free": "free, one replay",
    "noise": "random signs",
    "attacked_only_fast": "α = 0, one step",
    "attacked_only_fast_bf16": "α = 0, one step, bfloat16",
    "fast": "fast: one step",
    "attacked_only_3": "α = 0, N = 3",
    "reuse_3": "Algorithm 1, N = 3",
    "reuse_3_bf16": "Algorithm 1, N = 3, bfloat16",
    "plain_3": "N = 3, nothing reused",
    "reuse_9": "Algorithm 1, N = 9",
    "plain_9": "N = 9, nothing reused",
}
timed = cost.dropna(subset="count").copy()
lone = timed[timed["whole_passes"].isna()].set_index(["dataset", "method"])["times_clean"]
timed = timed.dropna(subset="whole_passes")
timed["scheme"] = pd.Categorical(timed["method"].map(SCHEMES), list(SCHEMES.values()))
timed = timed.sort_values(["dataset", "scheme"], ignore_index=True)
low = timed["method"].str.endswith("bf16")
steps = [lone[name, "step_bf16" if is_low else "step"] for name, is_low in zip(timed["dataset"], low, strict=True)]
timed["passes"] = timed["whole_passes"] + timed["search_steps"] * steps
timed["off"] = 100 * (timed["times_clean"] / timed["count"] - 1)
timed["off_passes"] = 100 * (timed["times_clean"] / timed["passes"] - 1)
table = pd.DataFrame(
    {
        "size": timed["dataset"].map(NAMES),
        "scheme": timed["scheme"].astype(str),
        "ms": timed["ms"].map("{:.0f}".format),
        "× clean": spread(timed, "times_clean", 2),
        "count": timed["count"],
        "off, %": timed["off"].map("{:+.0f}".format),
        "from passes": timed["passes"],
        "off, % ": timed["off_passes"].map("{:+.0f}".format),
    }
)
plots.table(table, formats={"count": "{:.2f}", "from passes": "{:.2f}"}, index=False)

# %% tags=["hide-input"]
for name, part in timed[~low & (timed["method"] != "clean")].groupby("dataset"):
    near = (part["off"].abs() <= 10).sum()
    print(f"{NAMES[name]}: {near} of {len(part)} schemes in float32 within 10 % of the count (from {part['off'].min():+.0f} to {part['off'].max():+.0f} %),")
    print(f"  {(part['off_passes'].abs() <= 10).sum()} within 10 % of what the measured passes make;")
    print(f"  a step costs {lone[name, 'step']:.2f} of a clean iteration (count {2 / 3:.2f}), in bfloat16 {lone[name, 'step_bf16']:.2f};")
    back = lone[name, "step"] / lone[name, "forward"] - 1
    print(f"  its way back to the pixels takes {back:.2f} times as long as its way forward (count 1)")
best = timed.set_index(["dataset", "method"])["times_clean"]
for name in timed["dataset"].unique():
    print(f"{NAMES[name]}, Algorithm 1 with N = 3: {best[name, 'reuse_3']:.2f} times clean, {best[name, 'reuse_3_bf16']:.2f} with its search in bfloat16")

# %% [markdown]
# - **A large network costs what the count says.** For ResNet34 nearly all time is in its products, and Algorithm 1 takes about the 10 units for 3 that were counted.
# - **A small one pays for what the count leaves out.** BatchNorm, ReLU and additions take as long in a step of the search as in a clean iteration, where the count charges two thirds of it;
#   and back through convolutions of few channels, the pixels' included, which clean training spares itself, takes longer than forward. So the schemes with most steps are furthest off. With a step at
#   its measured cost the count comes right: there is no other overhead in the loop. What a replay of the free scheme takes beyond a clean iteration is, again, the gradient of the pixels.
# - **Below the count:** bfloat16 in the search, where the processor has units for it. The larger the network, the more it saves.
# - The first row compares clean iterations with their neighbours: what it is away from 1 is noise.
#
# **Is the cheaper search as strong?** The committed backbone and letters that it was trained on: the mean cross-entropy after the search, by radius. *Kept* is the rise in bfloat16 over that in float32.

# %% tags=["hide-input"]
strength = cost[cost["method"].str.startswith("strength")].sort_values("radius")
kept = 100 * (strength["reuse_3_bf16"] - strength["clean"]) / (strength["reuse_3"] - strength["clean"])
table = pd.DataFrame(
    {
        "ρ": strength["radius"].map("{:g}".format),
        "clean": strength["clean"],
        "one random step": strength["fast"],
        "N = 3": strength["reuse_3"],
        "N = 3, bfloat16": strength["reuse_3_bf16"],
        "N = 9": strength["reuse_9"],
        "kept, %": kept.map("{:.1f}".format),
    }
)
losses = ["clean", "one random step", "N = 3", "N = 3, bfloat16", "N = 9"]
plots.table(table, formats=dict.fromkeys(losses, "{:.3f}"), index=False)

# %% [markdown]
# It is: rounding turns a sign only where the slope is next to nothing. One step from a random point falls behind as the radius grows, and many steps gain little over three.
#
# **And what is bought?** Training by each scheme with radii up to 16, then T1 on hangul's unseen classes, clean and under ten steps of ascent on the margin. All have as many updates of the weights, the free scheme
# in a quarter of the epochs (four replays of each batch). Mean and standard deviation over seeds; the test images are the same.

# %% tags=["hide-input"]
trained = cost[cost["method"].str.startswith("trained")].copy()
trained["method"] = trained["method"].str.removeprefix("trained_")
trained["scheme"] = pd.Categorical(trained["method"].map(SCHEMES), list(SCHEMES.values()))
groups = trained.groupby("scheme", observed=True)
bought = groups[["T1_0", "T1_4", "T1_8"]].agg(record.mean_sd)
bought = bought.rename(columns={"T1_0": "T1, clean", "T1_4": "T1, ρ = 4", "T1_8": "T1, ρ = 8"})
ratios = timed[timed["dataset"] == "hangul_size"].set_index("scheme")
bought.insert(0, "× clean", ratios["times_clean"].reindex(bought.index))
tested = trained.iloc[0]["parameters"]["tested"]
means = groups["T1_8"].mean()
gain = 100 * (means - means["clean (α = 1)"]) / (means["Algorithm 1, N = 3"] - means["clean (α = 1)"])
print("gain at ρ = 8 over clean training, in per cent of that of Algorithm 1 in float32:")
print("; ".join(f"{name}: {value:.0f}" for name, value in gain.drop("clean (α = 1)").items()))
print(f"{groups.size().min()} seeds, {tested} images; standard error of one accuracy of 50 %: {100 * (0.25 / tested) ** 0.5:.1f} points")
plots.table(bought.reset_index().astype({"scheme": str}), index=False)

# %% [markdown]
# - **The search in bfloat16 buys what that in float32 buys**, within the spread of the seeds.
# - **Random signs cost as much as a second clean iteration and buy nothing**: it is the search that makes robust.
# - **One step and no clean term** is the cheapest that buys most of the robustness. It can fail as a whole where the loss bends within the ball ([catastrophic overfitting](22_danskin)); a test at several steps tells.
# - **The free scheme is as cheap as clean training** and buys part, here at the price of clean T1: four replays of a batch see a quarter of the epochs.
#
# Chapter 23 compares [arms of equal cost](23_adversarial_training).
#
# ## Summary

# %% tags=["hide-input"]
for (device, size), part in speed.groupby(["device", "dataset"], sort=False):
    best = part[part["method"].str.startswith("library")].sort_values("ms").iloc[0]
    ratios = part.set_index("method")["ms"] / best["ms"]
    print(f"{size.replace('_', ' ')}, {device}: the library ({best['loop']}) takes {best['ms']:.1f} ms,")
    print(f"  {best['ms'] / best['floor']:.1f} times its floor; released order {ratios['released']:.1f} times that,")
    print(f"  plain loop {ratios['plain']:.1f} times; 5,500 visits take {5.5 * best['ms'] / 60:.1f} min")

# %% [markdown]
# - At CUB size the two large products are most of the work. Half of the gain comes from leaving out what inference does not need, the
#   other half from bfloat16, where the processor has units for it. After that, learning in float32 and Adam's memory traffic are as
#   long as inference.
# - At hangul size a product takes less time than the calls around it, so bfloat16 buys nothing and the floor is further away. There it
#   pays to stack seeds: the calls are shared. At CUB size it does not: arithmetic and the traffic of the weights grow with every
#   seed.
# - The chain with bfloat16 products has the law of the exact one as far as a test of Kolmogorov and Smirnov can see (`tests/learn/test_engine.py`), and the
#   [arms](05_alternating_backprop) on CUB100 were trained with it.
#
# - Among many classes, exact neighbours from blocks have level memory and time in proportion; prototypes are the cheap way, and a softmax over all classes the dear one.
#
# **Missing: figures on a GPU.** `make bench` measures the first CUDA device where there is one, and this page then shows it beside
# the CPU. Capturing a whole visit as one CUDA graph is not done.
