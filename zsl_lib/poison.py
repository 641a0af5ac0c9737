"""Zero-shot recognition with a poisoned table of class descriptions: what T1, AU, AS and H become.

The attacker of this module knows the test queries and their classes, and changes rows of the table within a
ball each; no image is touched. :func:`table_scores` makes what he sees of a fitted recogniser,
:class:`PoisonEvaluation` attacks with it in both search spaces and under both threats of
:mod:`zsl_lib.attacks.prototypes`, and :func:`becomes` says who is taken for whom.

Some recognisers know a seen class by its row, to the bit: LDF and CMT, and every
:class:`~zsl_lib.classify.SyntheticRecogniser`, which has real features of seen classes. To them a seen row
that is poisoned after training is one of a new class, however small the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from zsl_lib.attacks.prototypes import Poisoned, Threat
from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn.learner import FeatureLearner
from zsl_lib.learn.relation import RelationLearner
from zsl_lib.metrics import Recogniser
from zsl_lib.models.relation import RelationNetwork
from zsl_lib.robust import Attacked, EndToEnd, FeaturePath, Outcome, check_gradient, spread, with_clean

PoisonAttack = Callable[..., Poisoned]
Space = Literal["standard", "generalised"]
Which = Literal["own", "own unseen", "unseen", "seen", "seen and unseen"]


class RelationTables:
    """Scores of a relation network as a function of the table; images are embedded before, once.

    embedding: f ``[n, d]`` of the queries.
    """

    separable = True

    def __init__(self, net: RelationNetwork, embedding: Tensor) -> None:
        self.net, self.embedding = net, embedding
        with torch.no_grad():
            self._compare = net.compare_embedded(embedding)

    def __call__(self, tables: Tensor) -> Tensor:
        """``[n, C]`` for ``[C, K]`` or ``[n, C, K]``."""
        return self._compare(tables.to(self.embedding)).to(tables.device)

    def __getitem__(self, index: Tensor) -> RelationTables:
        """Of some queries."""
        return RelationTables(self.net, self.embedding[index.to(self.embedding.device)])


class RecogniserTables:
    """Scores of any recogniser with ``score_function(semantics)(x)`` as a function of the table.

    x: its inputs ``[n, ...]``. separable: see :mod:`zsl_lib.attacks.prototypes`; the caller's word. loop: one
    query after another for a table each, where ``torch.func.vmap`` does not go through the recogniser.
    """

    def __init__(self, recogniser: Any, x: Tensor, *, separable: bool = False, loop: bool = False) -> None:
        check_gradient(recogniser, "table_scores")
        self.recogniser, self.x, self.separable, self.loop = recogniser, x, separable, loop

    def __call__(self, tables: Tensor) -> Tensor:
        """``[n, C]`` for ``[C, K]`` or ``[n, C, K]``."""
        if tables.ndim == 2:
            found: Tensor = self.recogniser.score_function(tables)(self.x)
        elif self.loop:
            found = torch.stack([self._one(*pair) for pair in zip(tables, self.x, strict=True)])
        else:
            found = torch.func.vmap(self._one)(tables, self.x)
        return found.to(tables.device)

    def __getitem__(self, index: Tensor) -> RecogniserTables:
        """Of some queries."""
        return RecogniserTables(
            self.recogniser, self.x[index.to(self.x.device)], separable=self.separable, loop=self.loop
        )

    def _one(self, table: Tensor, x: Tensor) -> Tensor:
        return self.recogniser.score_function(table)(x[None])[0]


Tables = RelationTables | RecogniserTables


@torch.no_grad()
def table_scores(
    recogniser: Any,
    x: Tensor,
    *,
    path: FeaturePath | None = None,
    batch: int = 250,
    separable: bool = False,
    loop: bool = False,
) -> list[Tables]:
    """What attacks on prototypes see of a recogniser: batches of queries, each a function of the table.

    Parameters
    ----------
    recogniser: fitted, with ``score_function(semantics)(x)``, differentiable in the semantics; or an
        :class:`~zsl_lib.robust.EndToEnd`, whose path is taken. A relation network embeds its images once.
    x: queries ``[n, ...]`` as the recogniser takes them, or images in pixels if there is a path.
    separable, loop: see :class:`RecogniserTables`.

    Raises
    ------
    DataError: a recogniser without ``score_function``, no query, or a batch below 1.
    """
    if isinstance(recogniser, EndToEnd):
        recogniser, path = recogniser.recogniser, recogniser.path
    if len(x) == 0 or batch < 1:
        found = f"{len(x)} queries in batches of {batch}"
        raise DataError("table_scores", found=found, expected="at least one, in batches of 1 or more")
    made: list[Tables] = []
    for part in x.split(batch):
        if isinstance(recogniser, RelationLearner):
            made.append(RelationTables(recogniser.net, recogniser.image_embedding(part)))
        else:
            part = part if path is None else path(part)
            made.append(RecogniserTables(recogniser, part, separable=separable, loop=loop))
    return made


class GeneratorMean:
    """A recogniser with a gradient for a generator of features: how near is x to the mean of its samples?

    Scores are :math:`x^\\top m_c - \\|m_c\\|^2 / 2` with m_c the mean of g(c, z) over fixed latents: a
    surrogate of the classifiers that are fitted to such samples, which have no gradient in the table.

    model: fitted, such as :class:`~zsl_lib.learn.ABP`. draws: latents, the same for all classes.
    """

    def __init__(self, model: FeatureLearner, *, draws: int = 8, seed: int = 0) -> None:
        if draws < 1 or not hasattr(model, "net"):
            found = f"{draws} draws" if hasattr(model, "net") else "no generator"
            raise DataError("GeneratorMean", found=found, expected="a fitted model, 1 draw or more")
        rng = torch.Generator().manual_seed(seed)
        self.model, self.z = model, torch.randn(draws, model.config.latent_dim, generator=rng)

    def score_function(self, semantics: Tensor) -> Callable[[Tensor], Tensor]:
        """x ↦ scores ``[n, C]`` for descriptions ``[C, K]``, differentiable in both."""
        draws = len(self.z)
        c = semantics.to(self.model.device).repeat_interleave(draws, 0)
        z = self.z.to(c).repeat(len(semantics), 1)
        mean = self.model.net(c, z).unflatten(0, (len(semantics), draws)).mean(1)
        return lambda x: x.to(mean) @ mean.T - mean.square().sum(1) / 2

    @torch.no_grad()
    def scores(self, x: Tensor, semantics: Tensor) -> Tensor:
        """Scores ``[N, C]`` of features ``[N, D]``, on the CPU."""
        return self.score_function(semantics)(x).cpu()


class PoisonEvaluation:
    """Poisoned tables for the test queries of a data set, in both search spaces.

    Parameters
    ----------
    recogniser: what the attacker knows, see :func:`table_scores`; fitted on ``dataset``.
    dataset: inputs are ``dataset.x``: features, or images where there are none. Candidates are the unseen
        classes (standard) or all (generalised).
    victim: what is judged, if not the recogniser itself: a table made for one meets another, which may be
        fitted anew to it, as a :class:`~zsl_lib.classify.SyntheticRecogniser` is. One table for all queries
        then.
    images: how many of each test set, by :func:`~zsl_lib.robust.spread`; None: all. seed: of that choice.
    batch, separable, loop: see :func:`table_scores`.
    """

    def __init__(
        self,
        recogniser: Any,
        dataset: ZSLDataset,
        *,
        victim: Recogniser | None = None,
        images: int | None = None,
        seed: int = 0,
        batch: int = 250,
        separable: bool = False,
        loop: bool = False,
    ) -> None:
        self.dataset, self.victim = dataset, victim
        many = len(dataset) if images is None else images
        unseen, seen = (
            spread(i, dataset.labels, many, seed) for i in (dataset.test_unseen, dataset.test_seen)
        )
        index = torch.cat([unseen, seen])
        options: dict[str, Any] = {"batch": batch, "separable": separable, "loop": loop}
        # the unseen queries first, in batches of their own, so that both spaces share what was embedded
        parts = [table_scores(recogniser, dataset.x(i), **options) for i in (unseen, seen)]
        self._spaces = {
            "standard": (unseen, dataset.unseen, parts[0]),
            "generalised": (index, dataset.candidates, parts[0] + parts[1]),
        }

    def run(
        self,
        attack: PoisonAttack | None = None,
        *,
        threat: Threat | None = None,
        which: Which | Tensor = "unseen",
        **settings: Any,
    ) -> Attacked:
        """Outcomes of ``attack(scores, table, y, threat=…, which=…, **settings)``; None: of the clean table.

        Under ``"per_image"`` queries that are misrecognised anyhow are left alone, so that no accuracy rises.
        A table for all queries may help some.

        Parameters
        ----------
        which: rows that move. ``"own"``: that of the query's class, per image only; ``"own unseen"``: the
            same, and queries of seen classes have no attacker. ``"unseen"``, ``"seen"``, ``"seen and
            unseen"``: all of those. Or classes, int64 ``[k]``. Where none is a candidate, nothing changes.
        settings: the attack's; radii, steps and scales of one value a class have all classes of the data set.
            Outcomes have the largest change of a row, in ℓ2 and in ℓ∞, on the stated scale.

        Raises
        ------
        DataError: an attack without a threat, ``"per_image"`` for a victim, or what the attack refuses.
        """
        standard, generalised = (
            self._outcome(space, attack, threat, which, settings) for space in ("standard", "generalised")
        )
        return Attacked(standard, generalised, self.dataset.seen)

    def poison(
        self,
        attack: PoisonAttack,
        *,
        space: Space,
        threat: Threat,
        which: Which | Tensor = "unseen",
        **settings: Any,
    ) -> Poisoned:
        """The poisoned table of one search space, for all of its queries: rows are its candidates."""
        index, candidates, parts = self._spaces[space]
        if isinstance(which, str) and which == "own unseen":
            raise DataError("which", found=repr(which), expected="rows for every query")
        rows = self._rows(which, candidates)
        return self._attack(attack, parts, index, candidates, rows, threat, settings)

    def table(
        self,
        attacks: Mapping[str, PoisonAttack],
        *,
        threats: Sequence[Threat] = ("per_image", "universal"),
        which: Sequence[Which] = ("unseen",),
        **settings: Any,
    ) -> pd.DataFrame:
        """A row for each threat, choice of rows and attack: its accuracies, HT1 and HHM, and ρ if given.

        The first row is the clean table. ``knowledge`` is ``all`` or, for a victim, ``surrogate``. A
        ``generator`` among the settings is started anew for each run.
        """
        clean = self.run().accuracies
        knowledge = "all" if self.victim is None else "surrogate"
        rows: list[dict[str, Any]] = [{"attack": "none"} | clean._asdict()]
        seed = settings["generator"].initial_seed() if "generator" in settings else None
        for threat in threats:
            for rows_moved in which:
                for name, attack in attacks.items():
                    if seed is not None:
                        settings["generator"].manual_seed(seed)
                    found = self.run(attack, threat=threat, which=rows_moved, **settings).accuracies
                    stated = {"attack": name, "threat": threat, "rows": rows_moved, "knowledge": knowledge}
                    stated |= {"radius": settings["radius"]} if "radius" in settings else {}
                    rows.append(stated | found._asdict() | with_clean(clean, found))
        return pd.DataFrame(rows)

    def _rows(self, which: Which | Tensor, candidates: Tensor) -> Tensor | None:
        """Columns of the candidates that may move, int64 ``[m]``; None for each query's own."""
        d = self.dataset
        if isinstance(which, str):
            known = {"own": None, "own unseen": None, "seen": d.seen, "unseen": d.unseen}
            known["seen and unseen"] = d.candidates
            if which not in known:
                raise DataError("which", found=repr(which), expected=f"one of {', '.join(known)}, or classes")
            classes = known[which]
        else:
            classes = which
            strangers = classes[~torch.isin(classes, d.candidates)]
            if len(classes) == 0 or len(strangers):
                found = f"{len(classes)} classes, {len(strangers)} of them no candidates"
                raise DataError("which", found=found, expected="candidate classes")
        return None if classes is None else torch.isin(candidates, classes).nonzero().flatten()

    def _attack(
        self,
        attack: PoisonAttack,
        parts: list[Tables],
        index: Tensor,
        candidates: Tensor,
        rows: Tensor | None,
        threat: Threat,
        settings: Mapping[str, Any],
    ) -> Poisoned:
        table, y = self.dataset.semantics[candidates], self._columns(index, candidates)
        own = {
            key: value[candidates] if isinstance(value, Tensor) and value.ndim == 1 else value
            for key, value in settings.items()
        }
        return attack(parts, table, y, threat=threat, which=rows, **own)

    def _columns(self, index: Tensor, candidates: Tensor) -> Tensor:
        return torch.searchsorted(candidates, self.dataset.labels[index])

    def _outcome(
        self,
        space: str,
        attack: PoisonAttack | None,
        threat: Threat | None,
        which: Which | Tensor,
        settings: Mapping[str, Any],
    ) -> Outcome:
        index, candidates, parts = self._spaces[space]
        rows = None if attack is None else self._rows(which, candidates)
        if attack is None or (rows is not None and len(rows) == 0):
            return self._judged(space, self.dataset.semantics[candidates])
        if threat is None:
            raise DataError("threat", found=None, expected="'per_image' or 'universal'")
        if threat == "per_image":
            return self._each(space, attack, rows, which, settings)
        made = self._attack(attack, parts, index, candidates, rows, threat, settings)
        return _with_sizes(self._judged(space, made.tables), made, torch.arange(len(index)))

    def _each(
        self,
        space: str,
        attack: PoisonAttack,
        rows: Tensor | None,
        which: Which | Tensor,
        settings: Mapping[str, Any],
    ) -> Outcome:
        """Queries that are recognised, each with a table of its own."""
        if self.victim is not None:
            expected = "'universal', since a victim has one table for all queries"
            raise DataError("threat", found="'per_image'", expected=expected)
        index, candidates, parts = self._spaces[space]
        clean = self._judged(space, self.dataset.semantics[candidates])
        chosen = clean.right
        if isinstance(which, str) and which == "own unseen":
            chosen = chosen & torch.isin(clean.labels, self.dataset.unseen)
        if not chosen.any():
            return clean
        some = [part[mine.nonzero().flatten()] for part, mine in _paired(parts, chosen) if mine.any()]
        made = self._attack(attack, some, index[chosen], candidates, rows, "per_image", settings)
        scores = clean.scores.clone()
        scores[chosen] = made.scores(some).to(scores)
        return _with_sizes(_answered(scores, clean.labels, candidates), made, chosen.nonzero().flatten())

    def _judged(self, space: str, table: Tensor) -> Outcome:
        """Under one table ``[C, K]`` for all queries."""
        index, candidates, parts = self._spaces[space]
        if self.victim is None:
            with torch.no_grad():
                scores = torch.cat([part(table) for part in parts])
        else:
            scores = self.victim.scores(self.dataset.x(index), table)
        return _answered(scores.cpu(), self.dataset.labels[index], candidates)


def _paired(parts: list[Tables], chosen: Tensor) -> list[tuple[Tables, Tensor]]:
    sizes = [len(p.embedding if isinstance(p, RelationTables) else p.x) for p in parts]
    return list(zip(parts, chosen.split(sizes), strict=True))


def _answered(scores: Tensor, labels: Tensor, candidates: Tensor) -> Outcome:
    still = torch.zeros(len(labels))
    return Outcome(candidates[scores.argmax(1)], labels, scores, candidates, still, still)


def _with_sizes(outcome: Outcome, made: Poisoned, chosen: Tensor) -> Outcome:
    """With the largest change of a row for the chosen queries."""
    l2, linf = outcome.l2.clone(), outcome.linf.clone()
    change = (made.rows - made.table[made.columns]).abs().amax(-1) * made.scale[made.columns]
    l2[chosen], linf[chosen] = made.sizes.amax(-1).to(l2), change.amax(-1).to(linf)
    return replace(outcome, l2=l2, linf=linf)


def with_table(dataset: ZSLDataset, classes: Tensor, table: Tensor) -> ZSLDataset:
    """The data set with other descriptions ``[k, K]`` of some classes ``[k]``.

    To fit to it is to be poisoned before training; to evaluate on it, after.
    """
    return replace(dataset, semantics=dataset.semantics.index_copy(0, classes, table))


def becomes(before: Outcome, after: Outcome, names: Sequence[str]) -> pd.DataFrame:
    """Who is taken for whom: pairs of classes, and the share of the one's queries that go to the other.

    Columns ``class`` and ``becomes``, and ``before``, ``after`` and ``more`` in per cent of the class's
    queries; pairs that the attack makes more frequent, the largest increase first.
    """
    if not torch.equal(before.labels, after.labels):
        raise DataError("becomes: after", found="other queries", expected="those of before")
    shares = []
    for outcome in (before, after):
        pairs = pd.DataFrame({"class": outcome.labels.numpy(), "becomes": outcome.predictions.numpy()})
        shares.append(100 * pairs.groupby("class")["becomes"].value_counts(normalize=True))
    found = pd.concat(shares, axis=1, keys=["before", "after"]).fillna(0.0).reset_index()
    found["more"] = found["after"] - found["before"]
    found = found[(found["more"] > 0) & (found["class"] != found["becomes"])]
    found = found.sort_values(["more", "class", "becomes"], ascending=[False, True, True])
    for column in ("class", "becomes"):
        found[column] = [names[c] for c in found[column]]
    return found.reset_index(drop=True)
