"""Recognition with poisoned descriptions, on features: ``python results/poisoning.py hangul``.

Each method learns from features of all seen classes with the setting that validation found best
(``results/poisoning_search`` for relation networks and for what learns by Eq. 5, ``results/
compatibility_search`` and ``results/convergence`` for the others). Then rows of unseen classes are poisoned,
under both threats: a table for each query, in which its own class's row moves (``own``) or all unseen rows
do (``all``, at one radius, for few queries), and one table for all queries (``universal``). Generative
methods have no gradient in the table: the attacker makes one for all against the distance to the mean of
what they generate, and they generate and train a softmax from it.

Radii are in points of 100 an attribute: ρ = points · √K on the data set's own scale.

One record a method and seed in ``results/poisoning``: accuracies by threat, attack and radius as curves. A
record that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from common import best_setting, name_in_records, parser, run_all, semantics_words
from generative import chosen

from zsl_lib import embedding, record
from zsl_lib.attacks import prototypes
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.data import ZSLDataset, load
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.errors import DataError
from zsl_lib.learn.methods import learner
from zsl_lib.learn.poisoned import PoisonedDEM, PoisonedLDF, PoisonedLearner
from zsl_lib.learn.relation import RelationLearner
from zsl_lib.metrics import Accuracies, evaluate
from zsl_lib.models.backbone import backbone
from zsl_lib.poison import GeneratorMean, PoisonEvaluation
from zsl_lib.robust import Attacked, with_clean, worst_case

POINTS = (1.0, 2.0, 3.0, 6.0, 12.0)
"""An attribute; the first three are the paper's, on AWA2 and on CUB."""
PAPER = POINTS[:3]
STEPS = 9
"""Of every attack with several."""
LIES = (1, 2, 4)
"""Attributes of a class that are flipped."""

ATTACKS = (
    "clean",
    "noise",
    "fgsm",
    "ifgsm",
    "wrm",
    "gradient",
    "margin",
    "worst",
    "flip",
)
"""``attack`` of the curves counts these. ``gradient``: IFGSM along the gradient in place of its sign;
``margin``: the same on the margin; ``worst``: with a table for each query, query by query the
worst of the six before it, with one table for all the table with the lowest T1, and the lowest H. ``flip``
has a number of lies for a radius."""
THREATS: dict[str, tuple[prototypes.Threat, str]] = {
    "own": ("per_image", "own unseen"),
    "universal": ("universal", "unseen"),
}
SLACK = 1.0
"""Points of accuracy by which a check may miss."""
KINDS = (*THREATS, "all")
"""``threat`` of the curves counts these; ``all``: per image, all unseen rows."""


class FromFeatures(NamedTuple):
    """A method that learns here: its class, whose setting it takes, and what is its own."""

    cls: type
    setting_of: str
    own: dict[str, Any]


EPOCHS = 12
"""Of all relation networks."""


def trainable() -> dict[str, FromFeatures]:
    """Relation networks on features of the frozen backbone, by Eq. 5 and controls; DEM and LDF.

    ``more_epochs`` has α = 1 for as many epochs as Eq. 5 costs: 6 + 2 N = 12 units of passes against 3.
    """
    eq5 = partial(FromFeatures, PoisonedLearner, "atzsl")
    return {
        "atzsl": eq5({}),
        "atzsl_own": eq5({"reading": "own", "threat": "per_image"}),
        "atzsl_one": eq5({"reading": "one"}),
        "atzsl_several": eq5({"reading": "several"}),
        "noise": eq5({"reading": "noise"}),
        "dropout": eq5({"reading": "dropout"}),
        "baseline2": eq5({"alpha": 0.0}),
        "baseline": FromFeatures(RelationLearner, "baseline", {}),
        "more_epochs": FromFeatures(RelationLearner, "baseline", {"epochs": 4 * EPOCHS}),
        "baseline3": FromFeatures(
            RelationLearner, "baseline3", {"combine": "product", "temperature": 512**0.5}
        ),
        "dem_adv": FromFeatures(PoisonedDEM, "dem_adv", {}),
        "ldf_adv": FromFeatures(PoisonedLDF, "ldf_adv", {}),
    }


def learned(
    method: str, dataset: str, attributes: int, seed: int = 0, *, device: str = "auto", **setting: Any
) -> Any:
    """The method for K attributes, not fitted: a setting of the search, and what is the method's own."""
    cls, _, own = trainable()[method]
    where = {"seed": seed, "device": device}
    eq5 = {"radius": PAPER[-1] * attributes**0.5} if cls is not RelationLearner else {}
    if issubclass(cls, RelationLearner):
        given = {"epochs": EPOCHS, "freeze": True} | eq5 | setting | own
        net = backbone("hangul" if dataset == "hangul" else "lite0")
        return cls(cls.Config(**given), **where, backbone=net)
    return cls(**eq5 | setting | own, **where)


class Victim(NamedTuple):
    """What is judged, what the attacker knows (itself, or a surrogate), its data, and all that was set."""

    recogniser: Any
    known: Any
    data: ZSLDataset
    parameters: dict[str, Any]


def defended(method: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Victim:
    """What learns here, with the setting of ``results/poisoning_search``."""
    setting_of = trainable()[method].setting_of
    dataset = name_in_records(raw, options)
    setting = best_setting("poisoning_search", dataset, setting_of, options, script="poisoning_search")
    model = learned(method, options.dataset, raw.semantics.shape[1], seed, device=options.device, **setting)
    data = raw.scaled()
    model.fit(data)
    parameters = asdict(model.config) if isinstance(model, RelationLearner) else _settings(model)
    return Victim(model, model, data, parameters)


def compatibility(method: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Victim:
    """A compatibility model, with the setting of ``results/compatibility_search``."""
    dataset = name_in_records(raw, options)
    setting = best_setting("compatibility_search", dataset, method, options, script="compatibility")
    data = raw.scaled()
    model = embedding.available()[method](**setting, seed=seed, device=options.device).fit(data)
    return Victim(model, model, data, _settings(model))


def generative(method: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Victim:
    """A feature generator with softmax classifiers, with the setting of ``results/convergence``."""
    setting, epochs = chosen(name_in_records(raw, options), method, "tuned", options.results_dir)
    shared = {"hidden": options.hidden, "epochs": epochs}
    model, data = learner(method, shared, seed=seed, device=options.device, **setting), raw.scaled()
    model.fit(data, progress=False)
    softmax = SoftmaxClassifier(seed=seed, device=options.device)
    recogniser = SyntheticRecogniser(model, samples=options.samples, zsl=softmax, gzsl=softmax, seed=seed)
    parameters = asdict(model.config) | {"samples": options.samples}
    return Victim(recogniser.remember(data), GeneratorMean(model, seed=seed), data, parameters)


def _settings(model: Any) -> dict[str, Any]:
    assert is_dataclass(model)
    kept = (f.name for f in fields(model) if f.init and f.name not in ("seed", "device", "backbone"))
    return {name: getattr(model, name) for name in kept}


METHODS: dict[str, Callable[..., Victim]] = {
    **{method: partial(defended, method) for method in trainable()},
    **{method: partial(compatibility, method) for method in ("dem", "ldf")},
    **{method: partial(generative, method) for method in ("fgzsl", "mcgzsl", "abp")},
}
GENERATIVE = ("fgzsl", "mcgzsl", "abp")


def attacks(seed: int, points: float) -> dict[str, Callable[..., prototypes.Poisoned]]:
    """Those of a radius; beyond the paper's radii the strongest and the control alone."""

    def noise(*args: Any, **kwargs: Any) -> prototypes.Poisoned:
        return prototypes.noise(*args, generator=torch.Generator().manual_seed(seed), **kwargs)

    steep = partial(prototypes.ifgsm, direction="gradient", steps=STEPS)
    found = {"noise": noise, "gradient": steep, "margin": partial(steep, loss="margin")}
    if points in PAPER:
        found |= {"fgsm": prototypes.fgsm, "ifgsm": partial(prototypes.ifgsm, steps=STEPS)}
        found |= {"wrm": partial(prototypes.wrm, steps=STEPS)}
    return {name: found[name] for name in ATTACKS if name in found}


Row = dict[str, float]


def runs(victim: Victim, options: argparse.Namespace, seed: int, method: str) -> Iterator[Row]:
    """Rows of the curves, all numbers."""
    make = partial(evaluation, victim, method, seed)
    kinds = {"universal": make(options.images)}
    if method not in GENERATIVE:
        kinds |= {"own": kinds["universal"], "all": make(options.few)}
    for kind, where in kinds.items():
        yield from threat_rows(kind, where, victim.data, seed)


def evaluation(victim: Victim, method: str, seed: int, images: int) -> PoisonEvaluation:
    """Against what the attacker knows, judged on the victim. LDF's scores are no function of one row each."""
    judged = victim.recogniser if method in GENERATIVE else None
    separable = method not in ("ldf", "ldf_adv")
    given = {"victim": judged, "images": images, "seed": seed, "separable": separable}
    return PoisonEvaluation(victim.known, victim.data, **given)


def threat_rows(kind: str, where: PoisonEvaluation, data: ZSLDataset, seed: int) -> Iterator[Row]:
    """Of one threat: clean, every radius and attack, the worst of them, lies."""
    threat, which = THREATS.get(kind, ("per_image", "unseen"))
    clean = where.run()
    common = {"threat": KINDS.index(kind), "images": len(clean.standard.labels)}
    options = {"threat": threat, "which": which, "attribute_scale": data.points}

    def row(name: str, points: float, found: Accuracies) -> Row:
        numbers = found._asdict() | with_clean(clean.accuracies, found)
        return common | {"attack": ATTACKS.index(name), "points": points} | numbers

    yield row("clean", 0, clean.accuracies)
    for points in POINTS if kind != "all" else PAPER[-1:]:  # which costs as many tables as there are queries
        radius, found = points * data.semantics.shape[1] ** 0.5, []
        for name, attack in attacks(seed, points).items():
            found.append(where.run(attack, radius=radius, **options))
            yield row(name, points, found[-1].accuracies)
        yield row("worst", points, worst(found, threat))
    if kind == "own":
        for lies in LIES:
            yield row("flip", lies, where.run(prototypes.flip, count=lies, **options).accuracies)


def worst(found: list[Attacked], threat: prototypes.Threat) -> Accuracies:
    """Query by query; with one table for all, the lowest T1 of them, and AU, AS and H where H is lowest."""
    if threat == "per_image":
        return worst_case(found).accuracies
    tables = [run.accuracies for run in found]
    return min(tables, key=lambda one: one.H)._replace(T1=min(one.T1 for one in tables))


def headline(curves: pd.DataFrame) -> dict[str, float]:
    """T1 and H at the largest of the paper's radii, by threat, under IFGSM and in the worst case."""
    at = curves[curves["points"] == PAPER[-1]].set_index(["threat", "attack"])
    names = {
        f"{kind}_{name}": (KINDS.index(kind), ATTACKS.index(name))
        for kind in KINDS
        for name in ("ifgsm", "worst")
    }
    return {
        f"{m}_{name}": at.loc[key, m] for name, key in names.items() if key in at.index for m in ("T1", "H")
    }


def check(victim: Victim, method: str, curves: pd.DataFrame, seed: int, images: int) -> dict[str, float]:
    """Is the table to be believed? ``check_<question>`` is 1 or 0; a point of ``SLACK`` is chance.

    ``floor``: at no radius is random poison worse than the worst case. ``monotone``: the worst case falls
    with the radius. ``iterated``: IFGSM is no weaker than FGSM. ``converged``: three times the steps find no
    stronger table for all. ``transfer``: nor does ESZSL's table. These two tables' T1 are numbers too.
    """
    t1 = {
        name: curves[curves["attack"] == ATTACKS.index(name)].pivot(
            index="points", columns="threat", values="T1"
        )
        for name in ("noise", "worst", "fgsm", "ifgsm")
    }
    where = evaluation(victim, method, seed, images)
    radius = PAPER[-1] * victim.data.semantics.shape[1] ** 0.5
    given = {
        "threat": "universal",
        "which": "unseen",
        "radius": radius,
        "attribute_scale": victim.data.points,
    }
    steep = partial(prototypes.ifgsm, direction="gradient")
    base, longer = (where.run(steep, steps=steps, **given).accuracies.T1 for steps in (STEPS, 3 * STEPS))
    stranger = ESZSL().fit(victim.data)
    surrogate = PoisonEvaluation(
        stranger, victim.data, victim=victim.recogniser, images=images, seed=seed, separable=True
    )
    transfer = surrogate.run(partial(steep, steps=STEPS), **given).accuracies.T1
    answers = {  # NaN where a threat has no such radius
        "floor": not (t1["noise"] < t1["worst"] - SLACK).any(axis=None),
        "monotone": not (t1["worst"].diff() > SLACK).any(axis=None),
        "iterated": not (t1["ifgsm"] > t1["fgsm"] + SLACK).any(axis=None),
        "converged": longer >= base - SLACK,
        "transfer": transfer >= base - SLACK,
    }
    numbers = {"T1_converged": longer, "T1_transfer": transfer, "T1_gradient": base}
    return {f"check_{name}": float(holds) for name, holds in answers.items()} | numbers


def run(method: str, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics)
    if raw.points is None:
        hint = "radii are in points of 100; attributes have them, sentences do not"
        raise DataError(f"{raw.name}, {options.semantics}: points", found="none", expected="some", hint=hint)
    name = name_in_records(raw, options)
    target = options.results_dir / "poisoning" / record.filename(name, method, seed)
    if target.exists():
        return f"{target.name}: there already"
    watch = record.Stopwatch()
    try:
        victim = METHODS[method](raw, seed, options)
    except ArithmeticError as error:
        return f"{target.name}: not written. {error}"
    training = watch.seconds()
    curves = pd.DataFrame(runs(victim, options, seed, method))
    clean = evaluate(victim.recogniser, victim.data)
    metrics = clean._asdict() | {"training_seconds": training} | headline(curves)
    metrics |= check(victim, method, curves, seed, options.images)
    watch.record(
        "poisoning",
        raw,
        method,
        semantics=options.semantics,
        seed=seed,
        parameters=victim.parameters | shown(options),
        metrics=metrics,
        curves=curves,
        selection="validation",
        command=command(options, method, seed),
    ).write(options.results_dir)
    worsts = {kind: metrics.get(f"T1_{kind}_worst") for kind in KINDS}
    found = ", ".join(f"{kind} {t1:.1f}" for kind, t1 in worsts.items() if t1 is not None)
    head = f"{target.name}: T1 {clean.T1:.1f}, H {clean.H:.1f}"
    return f"{head}; T1 at {PAPER[-1]:g} points: {found}; {watch.seconds():.0f} s"


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """What was set for the attacks."""
    given = {key: getattr(options, key) for key in ("images", "few")}
    return given | {
        "attacks": list(ATTACKS),
        "threats": list(KINDS),
        "points": list(POINTS),
        "lies": list(LIES),
    }


def command(options: argparse.Namespace, method: str, seed: int) -> str:
    """What to type for this record alone."""
    words = [options.dataset, *semantics_words(options), f"--methods {method} --seeds {seed}"]
    words += [f"--{key} {getattr(options, key)}" for key in ("images", "few", "hidden", "samples")]
    return f"python results/poisoning.py {' '.join(words)}"


def poisoning_parser(description: str, methods: Iterable[str]) -> argparse.ArgumentParser:
    """The arguments of this experiment and its search."""
    made = parser(description, methods)
    made.add_argument("--images", type=int, default=200, help="queries of each test set")
    made.add_argument("--device", default="auto")
    return made


def main() -> None:
    made = poisoning_parser(__doc__.splitlines()[0], METHODS)
    made.add_argument("--few", type=int, default=24, help="queries where all unseen rows move for each")
    made.add_argument("--hidden", type=int, default=4096, help="width of generators' hidden layers")
    made.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    options = made.parse_args()
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
