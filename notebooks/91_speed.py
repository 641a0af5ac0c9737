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
# what the machine allows? `make bench` measures all of it in one run and writes records; this page reads them.
# Machines are noisy, so look at the ratios: each is taken between neighbours in time, and has its quartiles.

# %% tags=["parameters"]
results_dir = "results"  # folder of the records, from the project's root

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from zsl_lib import plots, record
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
# ## In short

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
# **Missing: figures on a GPU.** `make bench` measures the first CUDA device where there is one, and this page then shows it beside
# the CPU. Capturing a whole visit as one CUDA graph is not done.
