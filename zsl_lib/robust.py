"""Zero-shot recognition under attack: end to end from pixels, in both search spaces.

The attacker of this module knows all weights and the true class, changes the pixels of test images within a
ball, and leaves alone what is misrecognised anyhow. So no attack makes an accuracy larger.

:class:`EndToEnd` makes score functions in pixels of a fitted recogniser; :class:`RobustEvaluation` attacks
with them; :class:`Attacked` holds what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from zsl_lib.attacks.common import Norm, Scores, norms
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.metrics import Accuracies, harmonic_mean, per_class_accuracy
from zsl_lib.models.frozen import frozen

Attack = Callable[..., Tensor]


class Differentiable(Protocol):
    """A fitted recogniser that gives its scores as a function with a gradient."""

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]: ...


def check_gradient(recogniser: Any, where: str) -> None:
    """Raise DataError unless it gives its scores as a function with a gradient; nearest neighbours do not."""
    if not hasattr(recogniser, "score_function"):
        found = f"{type(recogniser).__name__} without score_function"
        raise DataError(where, found=found, expected="a recogniser with a gradient")


class FeaturePath:
    """From pixels to what a recogniser on features learned from: the frozen backbone, then its scaling.

    Parameters
    ----------
    backbone: what the data set's features came from; a copy is used, :func:`~zsl_lib.models.frozen.frozen`
        from the first call on.
    dataset: as read, features in the backbone's own units. A recogniser on ``dataset.scaled()`` sees
        ``(features - low) / span``, with the range of ``trainval``.
    scaled: False for a recogniser on unscaled features.

    Raises
    ------
    DataError: features that are incomplete, or of another width than the backbone's.
    """

    def __init__(self, backbone: nn.Module, dataset: ZSLDataset, *, scaled: bool = True) -> None:
        if dataset.features is None or dataset.mask is not None:
            found = "none" if dataset.features is None else "hidden ones"
            raise DataError(f"{dataset.name}: features", found=found, expected="complete features")
        width, expected = dataset.features.shape[1], backbone.width
        if width != expected:
            raise DataError(f"{dataset.name}: features", found=f"width {width}", expected=expected)
        self._frozen = False
        self.backbone: Any = deepcopy(backbone).eval()
        self.low, self.span = dataset.observed_range() if scaled else (torch.zeros(1), torch.ones(1))

    def to(self, device: torch.device | str) -> FeaturePath:
        """Itself, on the device."""
        self.backbone.to(device)
        self.low, self.span = self.low.to(device), self.span.to(device)
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[n, D]`` of images ``[n, channels, H, W]`` in pixels of [0, 255], differentiable."""
        if not self._frozen:
            self.backbone, self._frozen = frozen(self.backbone, lambda net: net.features(x[:2] / 255)), True
        return (self.backbone.features(x / 255) - self.low) / self.span


@dataclass(frozen=True)
class EndToEnd:
    """Score functions in pixels of a fitted recogniser, for whichever classes are the candidates.

    recogniser: on images in pixels (a relation network), or on features if there is a ``path``.
    semantics: ``[C, K]`` of all classes, as the recogniser learned from them.
    path: None, or from pixels to its features.
    """

    recogniser: Differentiable
    semantics: Tensor
    path: FeaturePath | None = None

    def __call__(self, classes: Tensor) -> Scores:
        """images ``[n, ...]`` in pixels ↦ scores ``[n, C]`` of ``classes`` ``[C]``.

        Raises
        ------
        DataError: a recogniser without a gradient, such as nearest neighbours.
        """
        check_gradient(self.recogniser, "EndToEnd")
        scores = self.recogniser.score_function(self.semantics[classes])
        if self.path is None:
            return scores
        path = self.path
        return lambda x: scores(path(x)).to(x)


@dataclass(frozen=True)
class Outcome:
    """What became of n images among C candidates.

    predictions, labels: classes, int64 ``[n]``. scores: ``[n, C]``, of the attacked images. candidates:
    ``[C]``. linf, l2: size of each perturbation, in pixels ``[n]``; 0 for what was left alone.
    """

    predictions: Tensor
    labels: Tensor
    scores: Tensor
    candidates: Tensor
    linf: Tensor
    l2: Tensor

    @property
    def right(self) -> Tensor:
        """bool ``[n]``."""
        return self.predictions == self.labels

    def beyond(self, radius: float, norm: Norm) -> Outcome:
        """Of an attack that seeks the smallest perturbation: only those up to ``radius`` count.

        ``scores`` stay those of the perturbation found.
        """
        size = self.linf if norm == "linf" else self.l2
        return replace(self, predictions=self.predictions.where(size <= radius, self.labels))

    def shifted(self, gamma: float, seen: Tensor) -> Outcome:
        """The same scores with ``gamma`` taken off those of the ``seen`` classes."""
        scores = self.scores - gamma * torch.isin(self.candidates, seen)
        return replace(self, scores=scores, predictions=self.candidates[scores.argmax(1)])


@dataclass(frozen=True)
class Attacked:
    """Outcomes of one attack: standard (unseen images, unseen classes) and generalised (all of both)."""

    standard: Outcome
    generalised: Outcome
    seen: Tensor

    @property
    def accuracies(self) -> Accuracies:
        """T1, AU, AS and H under the attack, per class and in per cent."""
        t1 = per_class_share(self.standard.labels, self.standard.right)
        return Accuracies(t1, *balance(self.generalised, self.seen).values())

    def beyond(self, radius: float, norm: Norm) -> Attacked:
        """See :meth:`Outcome.beyond`."""
        standard, generalised = (part.beyond(radius, norm) for part in (self.standard, self.generalised))
        return Attacked(standard, generalised, self.seen)

    @property
    def transitions(self) -> pd.DataFrame:
        """Where seen and unseen images go in the generalised task: shares in per cent, per class.

        Rows: seen, unseen (truth). Columns: ``right``; ``same side``, a wrong class of the same kind; ``other
        side``, a class of the other kind.
        """
        out, rows = self.generalised, {}
        is_seen, to_seen = (torch.isin(c, self.seen) for c in (out.labels, out.predictions))
        for name, which in (("seen", is_seen), ("unseen", ~is_seen)):
            crossed = per_class_share(out.labels[which], (to_seen != is_seen)[which])
            right = per_class_share(out.labels[which], out.right[which])
            rows[name] = {"right": right, "same side": 100 - right - crossed, "other side": crossed}
        return pd.DataFrame.from_dict(rows, orient="index")


def worst_case(runs: Sequence[Attacked]) -> Attacked:
    """Image by image the worst of several attacks: an image counts as right if it withstands all."""
    first, *others = runs
    standard, generalised = first.standard, first.generalised
    for run in others:
        standard, generalised = _worse(standard, run.standard), _worse(generalised, run.generalised)
    return Attacked(standard, generalised, first.seen)


def _worse(a: Outcome, b: Outcome) -> Outcome:
    """a, with b's answer where a's is right."""
    chosen = {k: torch.where(a.right, getattr(b, k), getattr(a, k)) for k in ("predictions", "linf", "l2")}
    return replace(a, scores=torch.where(a.right[:, None], b.scores, a.scores), **chosen)


def per_class_share(labels: Tensor, which: Tensor) -> float:
    """Mean over classes of the share of their images that ``which`` ``[n]`` marks, in per cent."""
    return per_class_accuracy(labels, labels.where(which, -1))


def balance(outcome: Outcome, seen: Tensor) -> dict[str, float]:
    """AU, AS and H of a generalised task, in per cent."""
    is_seen = torch.isin(outcome.labels, seen)
    au, as_ = (per_class_share(outcome.labels[i], outcome.right[i]) for i in (~is_seen, is_seen))
    return {"AU": au, "AS": as_, "H": harmonic_mean(au, as_)}


def with_clean(clean: Accuracies, attacked: Accuracies) -> dict[str, float]:
    """HT1 and HHM of paper 2, §4.2: harmonic means of T1, and of H, without and with the attack."""
    return {"HT1": harmonic_mean(clean.T1, attacked.T1), "HHM": harmonic_mean(clean.H, attacked.H)}


def spread(index: Tensor, labels: Tensor, images: int, seed: int = 0) -> Tensor:
    """``images`` of the ``index`` ``[n]``, drawn by ``seed``, as evenly over their classes as there are some.

    A smaller number takes some of those that a larger one takes. labels: of all examples.

    Raises
    ------
    DataError: not one image.
    """
    if images < 1:
        raise DataError("images", found=images, expected="1 or more")
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))]
    own = pd.Series(labels[index].numpy())
    before = torch.from_numpy(own.groupby(own).cumcount().to_numpy().copy())  # of the same class
    return index[before.argsort(stable=True)[:images]].sort().values


class RobustEvaluation:
    """Attacks on the test images of a data set, in both search spaces.

    Parameters
    ----------
    target: classes ``[C]`` ↦ a score function in pixels, such as :class:`EndToEnd`.
    dataset: with images; all of its classes are candidates.
    images: how many of each test set are attacked, by :func:`spread`; None: all.
    seed: of that choice.
    batch: images attacked at once.
    device: where images go; the target's own.

    Raises
    ------
    DataError: no images.
    """

    def __init__(
        self,
        target: Callable[[Tensor], Scores],
        dataset: ZSLDataset,
        *,
        images: int | None = None,
        seed: int = 0,
        batch: int = 250,
        device: torch.device | str = "cpu",
    ) -> None:
        if dataset.images is None:
            hint = "load(..., images=True)"
            raise DataError(f"{dataset.name}: images", found="none", expected="images to attack", hint=hint)
        self.dataset, self.seed, self.batch, self.device = dataset, seed, batch, torch.device(device)
        self.standard, self.generalised = target(dataset.unseen), target(dataset.candidates)
        self._take(len(dataset) if images is None else images)

    def few(self, images: int) -> RobustEvaluation:
        """The same with fewer images, for attacks that cost much; the classifiers are shared."""
        made = copy(self)
        made._take(images)
        return made

    def _take(self, images: int) -> None:
        d = self.dataset
        self.unseen, self.seen = (
            spread(i, d.labels, images, self.seed) for i in (d.test_unseen, d.test_seen)
        )
        self._clean: dict[tuple[bool, int], Tensor] = {}

    def run(self, attack: Attack | None = None, **settings: Any) -> Attacked:
        """Outcomes of ``attack(scores, x, y, **settings)`` in both search spaces; None: of clean images."""
        attack = None if attack is None else partial(attack, **settings)
        standard = self._outcome(self.standard, self.unseen, self.dataset.unseen, attack)
        return Attacked(standard, self._generalised(self.generalised, attack), self.dataset.seen)

    def sweep(self, gammas: Sequence[float], attack: Attack, **settings: Any) -> pd.DataFrame:
        """Calibrated stacking under attack: ``gamma`` off seen scores, for three kinds of attacker.

        ``kind`` is ``clean``, ``fixed`` (all images attacked without γ, then calibrated) or ``adaptive``
        (attacked at that γ). A column each for gamma, AU, AS and H.
        """
        seen, rows, attack = self.dataset.seen, [], partial(attack, **settings)
        clean = self._generalised(self.generalised, None)
        fixed = self._generalised(self.generalised, attack, spare=False)
        for gamma in gammas:
            adaptive = self._generalised(calibrated(self.generalised, self.dataset, gamma), attack)
            kinds = {"clean": clean.shifted(gamma, seen), "fixed": fixed.shifted(gamma, seen)}
            for kind, outcome in (kinds | {"adaptive": adaptive}).items():
                rows.append({"gamma": gamma, "kind": kind} | balance(outcome, seen))
        return pd.DataFrame(rows)

    def examples(self) -> tuple[Tensor, Tensor]:
        """The images of the generalised task in pixels and their columns, for :func:`run_checks`."""
        index = torch.cat([self.unseen, self.seen])
        return self._pixels(index), self._columns(index, self.dataset.candidates)

    def _pixels(self, index: Tensor) -> Tensor:
        """float32 ``[n, channels, H, W]`` in pixels of [0, 255], on the device."""
        images = self.dataset.images[index]  # type: ignore[index]
        x = images.float() if images.dtype == torch.uint8 else 255 * images
        return x.to(self.device)

    def _columns(self, index: Tensor, candidates: Tensor) -> Tensor:
        """Column of each image's class, on the device."""
        return torch.searchsorted(candidates, self.dataset.labels[index]).to(self.device)

    def _generalised(self, scores: Scores, attack: Attack | None, *, spare: bool = True) -> Outcome:
        index = torch.cat([self.unseen, self.seen])
        return self._outcome(scores, index, self.dataset.candidates, attack, spare=spare)

    def _outcome(
        self, scores: Scores, index: Tensor, candidates: Tensor, attack: Attack | None, *, spare: bool = True
    ) -> Outcome:
        """``spare``: leave alone what is misrecognised."""
        parts = [
            self._batch(scores, part, candidates, attack, spare, number)
            for number, part in enumerate(index.split(self.batch))
        ]
        values, linf, l2 = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        labels, predictions = self.dataset.labels[index], candidates[values.argmax(1)]
        return Outcome(predictions, labels, values, candidates, linf, l2)

    @torch.no_grad()
    def _batch(
        self,
        scores: Scores,
        index: Tensor,
        candidates: Tensor,
        attack: Attack | None,
        spare: bool,
        number: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, and both sizes of the perturbation."""
        x, y = self._pixels(index), self._columns(index, candidates)
        values, sizes = self._clean_scores(scores, x, number), torch.zeros(2, len(x), device=self.device)
        chosen = (values.argmax(1) == y) if spare else torch.ones_like(y, dtype=torch.bool)
        if attack is not None and chosen.any():
            moved = attack(scores, x[chosen], y[chosen])
            values[chosen] = scores(moved)
            delta = moved - x[chosen]
            sizes[:, chosen] = torch.stack([norms(delta, norm).flatten() for norm in ("linf", "l2")])
        return values, sizes[0], sizes[1]

    def _clean_scores(self, scores: Scores, x: Tensor, number: int) -> Tensor:
        """Of batch ``number``; those of the two search spaces are the same for all attacks, and kept."""
        if scores is not self.standard and scores is not self.generalised:
            return scores(x)
        key = scores is self.standard, number
        if key not in self._clean:
            self._clean[key] = scores(x)
        return self._clean[key].clone()


def calibrated(scores: Scores, dataset: ZSLDataset, gamma: float) -> Scores:
    """A score function over all candidates, with ``gamma`` taken off seen classes'."""
    off = gamma * torch.isin(dataset.candidates, dataset.seen)
    return lambda x: scores(x) - off.to(x)


def gamma_grid(*runs: Attacked, count: int = 9) -> list[float]:
    """γ from where nearly all goes to seen classes to where nearly all goes to unseen ones, with 0.

    Quantiles of the gap between the best score among seen and among unseen classes, over all images of all
    runs, and so in the units of the recogniser's scores.
    """
    gaps = []
    for out in (run.generalised for run in runs):
        is_seen = torch.isin(out.candidates, runs[0].seen)
        gaps.append(out.scores[:, is_seen].amax(1) - out.scores[:, ~is_seen].amax(1))
    shares = torch.linspace(0.02, 0.98, count - 1, dtype=torch.float64)
    return sorted([0.0, *torch.cat(gaps).double().quantile(shares).tolist()])
