"""Draw the README's picture from the embedded data and the records: ``python results/overview.py``."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns
import torch

from zsl_lib import plots, record
from zsl_lib.data import load
from zsl_lib.files import project_root

METRICS = ["T1", "H"]


def letters() -> torch.Tensor:
    """Two rows of seen classes above two of unseen ones, ten typefaces each: ``[4·32, 10·32]``."""
    data = load("hangul", images=True)
    assert data.images is not None
    rows = []
    for c in (*data.seen[[3, 40]], *data.unseen[[5, 21]]):
        picks = torch.nonzero(data.labels == c).flatten()
        rows.append(torch.cat([*data.images[picks[:: len(picks) // 10][:10]].squeeze(1)], dim=1))
    return torch.cat(rows)


def main() -> None:
    plots.style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(1.3, 1))
    left.imshow(letters(), cmap="gray_r")
    left.set(xticks=[], yticks=[32, 96], yticklabels=["seen", "unseen"])
    left.tick_params(length=0)
    sns.despine(ax=left, left=True, bottom=True)
    records = record.read_records(project_root() / "results", "recognition")
    records = records[records["dataset"].isin(["hangul", "CUB100"])]
    long = records.melt(["dataset", "method"], METRICS, "metric", "accuracy (%)")
    long["case"] = long["dataset"] + "\n" + long["metric"]
    order = [f"{d}\n{m}" for d in ("hangul", "CUB100") for m in METRICS]
    style = {
        "x": "case",
        "y": "accuracy (%)",
        "hue": "method",
        "hue_order": ["eszsl", "abp"],
        "order": order,
        "ax": right,
    }
    sns.barplot(long, errorbar=None, **style)  # bars are means over seeds
    sns.stripplot(long, dodge=True, jitter=False, palette="dark:0.2", size=2.5, legend=False, **style)
    right.set(xlabel="", ylim=(0, 100))
    right.legend(title="", loc="upper right")
    figure.savefig(project_root() / "_static" / "overview.png", dpi=160)


if __name__ == "__main__":
    main()
