r"""Made-up features of real classes: drawn around the rows of a pretrained classifier.

Let the features of class c be normal with mean μ_c and a covariance Σ that all classes share. Bayes' rule is
then a linear classifier (linear discriminant analysis) with rows :math:`w_c = \Sigma^{-1}(\mu_c - \bar\mu)`.
Read backwards, the rows of a pretrained classifier and a Σ say where the means are:

.. math:: \mu_c = \Sigma\,(w_c - \bar w), \qquad x = \mu_c + \Sigma^{1/2}\varepsilon .

Here Σ = a² C with C the covariance of the rows, of which the leading principal components are kept: features
vary within a class in the directions in which the rows vary most. The one number left, a, says how well
classes can be told apart. It is set so that Bayes' rule is right as often as asked for, say as often as the
pretrained network on real images.

Such features test code and semantics. They are not images: nothing about them is new to a classifier that
was trained on all of these classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.data.wordnet import Hierarchy
from zsl_lib.errors import DataError


class ClassNormals:
    """Normal classes of one covariance, given by a classifier's rows.

    Parameters
    ----------
    rows: ``[C, D]``, C at least 2, not all the same.
    accuracy: share of draws that Bayes' rule gets right, in (1 / C, 1). components: directions that are kept;
        None keeps all. seed: of the draws that set the accuracy.

    Raises
    ------
    DataError: one of them is not so.
    """

    def __init__(
        self, rows: Tensor, accuracy: float, *, components: int | None = None, seed: int = 0
    ) -> None:
        c = len(rows)
        if rows.ndim != 2 or c < 2 or not rows.isfinite().all() or (rows == rows[0]).all():
            found = f"{tuple(rows.shape)}, finite: {bool(rows.isfinite().all())}"
            expected = "[C, D], two or more, finite and not all the same"
            raise DataError("ClassNormals: rows", found=found, expected=expected)
        if not 1 / c < accuracy < 1:
            raise DataError("ClassNormals: accuracy", found=accuracy, expected=f"between 1/{c} and 1")
        most = min(rows.shape)
        if components is not None and not 1 <= components <= most:
            raise DataError("ClassNormals: components", found=components, expected=f"1 to {most}")
        rows = rows.double()
        u, s, v = (part[..., :components] for part in _svd(rows - rows.mean(0)))
        self.rows = u * s @ v.T  # [C, D]
        self.root = v * s / c**0.5  # [D, r] with root rootᵀ = C
        self.directions = self.rows @ self.root @ self.root.T  # Σ w at a = 1, [C, D]
        self.a = self._scale(accuracy, seed)

    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One feature vector a label, float32 ``[n, D]``."""
        noise = torch.randn(len(labels), self.root.shape[1], generator=generator, dtype=torch.float64)
        return (self.a**2 * self.directions[labels] + self.a * noise @ self.root.T).float()

    def scores(self, x: Tensor) -> Tensor:
        """Bayes' rule up to a term of x alone: ``[n, C]``, the highest is the likeliest class."""
        half = self.a**2 * (self.rows * self.directions).sum(1) / 2
        return x.double() @ self.rows.T - half

    def _scale(self, accuracy: float, seed: int, draws: int = 4000) -> float:
        """a by bisection, on the same draws each time."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(len(self.rows), (draws,), generator=generator)
        noise = torch.randn(draws, self.root.shape[1], generator=generator, dtype=torch.float64)
        # Bayes' scores are a² G[y] + a N - a² g / 2, with G the rows' inner products under C: no draw needed.
        G = self.rows @ self.directions.T
        N = noise @ (self.rows @ self.root).T
        low, high = 0.0, 1.0
        while self._accuracy(high, labels, G, N) < accuracy and high < 2.0**60:
            low, high = high, 2 * high
        for _ in range(30):
            middle = (low + high) / 2
            right = self._accuracy(middle, labels, G, N) < accuracy
            low, high = (middle, high) if right else (low, middle)
        return high

    @staticmethod
    def _accuracy(a: float, labels: Tensor, G: Tensor, N: Tensor) -> float:
        scores = a * (G[labels] - G.diagonal() / 2) + N
        return float((scores.argmax(1) == labels).double().mean())


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u ``[C, r]``, s ``[r]`` and v ``[D, r]`` with matrix = u diag(s) vᵀ; v's columns have one sign."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    sign = vt.gather(1, vt.abs().argmax(1, keepdim=True)).sign().flatten()
    return u * sign, s, vt.T * sign


def hold_out(hierarchy: Hierarchy, *, single: int, in_subtrees: int, seed: int = 0) -> tuple[str, ...]:
    """Some of the 1,000 seen classes to be unseen, near and far from the rest; sorted.

    ``single`` classes are drawn one by one, so most keep a sibling. Whole subtrees of 5 to 30 classes are
    drawn until they hold at least ``in_subtrees`` classes; theirs is the greater distance.

    Raises
    ------
    DataError: more than the hierarchy can give.
    """
    rng = np.random.default_rng(seed)
    below: dict[str, set[str]] = {}
    for wnid in hierarchy.seen:
        for above in hierarchy.ancestors(wnid):
            below.setdefault(above, set()).add(wnid)
    subtrees = sorted(node for node, classes in below.items() if 5 <= len(classes) <= 30)
    chosen: set[str] = set()
    for node in rng.permutation(subtrees) if subtrees else ():
        if len(chosen) >= in_subtrees:
            break
        chosen |= below[str(node)]
    rest = [wnid for wnid in hierarchy.seen if wnid not in chosen]
    if len(chosen) < in_subtrees or single >= len(rest):
        found = f"{single} single and {in_subtrees} in subtrees, of {len(hierarchy.seen)}"
        raise DataError("hold_out", found=found, expected="some classes left")
    chosen |= {str(wnid) for wnid in rng.choice(rest, single, replace=False)}
    return tuple(sorted(chosen))


def stand_in(
    normals: ClassNormals,
    semantics: Tensor,
    names: Sequence[str],
    unseen: Tensor,
    *,
    per_class: int = 20,
    test_seen: int = 3,
    test_unseen: tuple[int, int] = (5, 40),
    seed: int = 0,
) -> ZSLDataset:
    """A zero-shot problem of drawn features.

    Parameters
    ----------
    semantics, names: of the C classes, and of more that have no example. unseen: bool ``[C]``.
    per_class, test_seen: training and test examples of a seen class.
    test_unseen: an unseen class has a number of test examples between these two, drawn uniformly on a
        logarithmic scale: classes of ImageNet-21K differ much in theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = test_unseen
    if not 1 <= low <= high or unseen.all() or not unseen.any():
        found = f"test_unseen={test_unseen}, {int(unseen.sum())} of {len(unseen)} classes unseen"
        raise DataError("stand_in", found=found, expected="1 <= low <= high, and classes of both kinds")
    share = torch.rand(len(unseen), generator=generator)
    counts = (low * (high / low) ** share).round().long()
    numbers = torch.arange(len(unseen))
    sizes = {
        "trainval": torch.where(unseen, 0, per_class),
        "test_seen": torch.where(unseen, 0, test_seen),
        "test_unseen": torch.where(unseen, counts, 0),
    }
    parts = {key: numbers.repeat_interleave(n) for key, n in sizes.items()}
    labels = torch.cat(list(parts.values()))
    index = torch.arange(len(labels)).split([len(part) for part in parts.values()])
    return ZSLDataset(
        name="stand-in",
        features=normals.sample(labels, generator),
        labels=labels,
        semantics=semantics,
        class_names=tuple(names),
        **dict(zip(parts, index, strict=True)),
    )
