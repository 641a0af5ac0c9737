"""Recognition under attack, end to end from pixels: ``python results/robustness.py hangul``.

Each method learns from all seen classes: the relation networks and the -adv methods from pixels, with the
settings that ``results/robustness_search.py`` found best on validation, the others on features of the
backbone, which stays as it is, with the settings that ``results/compatibility_search`` and
``results/convergence`` found. Then test images are attacked through backbone, scaling and
classifier in the standard (unseen classes) and the generalised task (all classes), a seeded part of them for
attacks that cost much. T1 of generative methods is that of a softmax on synthetic features: 20 nearest
neighbours have no gradient.

One record a method and seed in ``results/robustness``: accuracies by attack and radius as curves, the checks
of ``zsl_lib.attacks.checks`` among the metrics. The calibration sweep under attack is a record in
``results/robustness_sweep``. A record that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from common import best_setting, name_in_records, parser, run_all, semantics_words
from generative import chosen

from zsl_lib import embedding, record
from zsl_lib.attacks import autoattack, cw, deepfool, fgsm, noise, pgd, wrm, zoo
from zsl_lib.attacks.checks import CHECKS, run_checks, transfer
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.data import ZSLDataset, load
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.learn.adversarial import AdversarialDEM, AdversarialLDF, AdversarialLearner
from zsl_lib.learn.methods import learner
from zsl_lib.learn.relation import RelationLearner
from zsl_lib.models.backbone import backbone
from zsl_lib.robust import (
    Attacked,
    EndToEnd,
    FeaturePath,
    RobustEvaluation,
    gamma_grid,
    with_clean,
    worst_case,
)

RADII = (1, 2, 4, 8, 16)
"""In pixels of [0, 255]; the paper's are 1, 2, 4. On validation classes of hangul, 1 hardly harms and 16
leaves next to nothing of any method. Photographs need smaller ones: a quarter harms there."""
MIDDLE = 4
"""The radius of metrics, checks, AutoAttack and sweep: the paper's largest. The attacks that cost most go up
to it."""

ATTACKS = (
    "clean",
    "noise",
    "fgsm",
    "ifgsm",
    "wrm",
    "pgd_margin",
    "worst",
    "deepfool",
    "cw",
    "zoo",
    "autoattack",
)
"""``attack`` of the curves counts these. ``worst``: image by image the worst of the five before it."""


class Trained(NamedTuple):
    """A target of attacks; all that was set to learn it; where it runs."""

    target: EndToEnd
    parameters: dict[str, Any]
    device: torch.device


class FromPixels(NamedTuple):
    """A method that learns from pixels: its class, whose setting it takes, and what is its own."""

    cls: type
    setting_of: str
    own: dict[str, Any]


EPOCHS = 8
"""Of all methods that learn from pixels."""

FROM_PIXELS = {
    "atzsl": FromPixels(AdversarialLearner, "atzsl", {}),
    "atzsl_16": FromPixels(AdversarialLearner, "atzsl", {"radius": 16.0}),
    "baseline": FromPixels(RelationLearner, "baseline", {}),
    "baseline2": FromPixels(AdversarialLearner, "atzsl", {"alpha": 0.0}),
    "baseline3": FromPixels(RelationLearner, "baseline3", {"combine": "product"}),
    "baseline3_tempered": FromPixels(
        RelationLearner, "baseline3_tempered", {"combine": "product", "temperature": 512**0.5}
    ),
    "noise": FromPixels(AdversarialLearner, "atzsl", {"scheme": "noise"}),
    "more_epochs": FromPixels(RelationLearner, "baseline", {"epochs": round(10 / 3 * EPOCHS)}),
    "dem_pixels": FromPixels(AdversarialDEM, "dem_pixels", {"alpha": 1.0}),
    "dem_adv": FromPixels(AdversarialDEM, "dem_adv", {}),
    "ldf_pixels": FromPixels(AdversarialLDF, "ldf_pixels", {"alpha": 1.0}),
    "ldf_adv": FromPixels(AdversarialLDF, "ldf_adv", {}),
}
"""The relation network of paper 2: by Eq. 4 with α = ½; with radii up to 16 in place of 4; α = 1; α = 0; the
product, as printed and at the temperature √512; random signs in place of the search; α = 1 for as many
epochs as α = ½ costs (10 units of passes against 3). DEM and LDF with their image networks: α = 1 and ½."""


def from_pixels(method: str, options: argparse.Namespace, seed: int = 0, **setting: Any) -> Any:
    """The method, not fitted: a setting of the search, what is the method's own, what ``--set`` says."""
    cls, _, own = FROM_PIXELS[method]
    given = {"epochs": EPOCHS} | setting | own | json.loads(options.set)
    where = {"seed": seed, "device": options.device, "backbone": backbone(options.backbone)}
    if issubclass(cls, RelationLearner):
        return cls(cls.Config(**given), **where)
    return cls(**given, **where)


def on_pixels(method: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Trained:
    """A method that learns from pixels, with the setting that is best on validation."""
    setting = tuned(name_in_records(raw, options), method, options) if options.settings == "tuned" else {}
    model = from_pixels(method, options, seed, **setting).fit(replace(raw, features=None))
    settings = asdict(model.config) if isinstance(model, RelationLearner) else _settings(model)
    return Trained(EndToEnd(model, raw.semantics), settings, torch.device(model.device))


def tuned(dataset: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The best setting of ``results/robustness_search``.

    Raises
    ------
    DataError: no record of such a search.
    """
    setting_of = FROM_PIXELS[method].setting_of
    return best_setting("robustness_search", dataset, setting_of, options, script="robustness_search")


def on_features(name: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Trained:
    """A compatibility model on features, with the setting of ``results/compatibility_search``."""
    dataset = name_in_records(raw, options)
    setting = best_setting("compatibility_search", dataset, name, options, script="compatibility")
    data = raw.scaled()
    model = embedding.available()[name](**setting, seed=seed, device=options.device).fit(data)
    target = through(model, raw, data, options, model.device)
    return Trained(target, _settings(model), torch.device(model.device))


def generative(name: str, raw: ZSLDataset, seed: int, options: argparse.Namespace) -> Trained:
    """A feature generator with softmax classifiers, with the setting of ``results/convergence``."""
    setting, epochs = chosen(name_in_records(raw, options), name, "tuned", options.results_dir)
    shared = {"hidden": options.hidden, "epochs": epochs}
    model, data = learner(name, shared, seed=seed, device=options.device, **setting), raw.scaled()
    model.fit(data, progress=False)
    softmax = SoftmaxClassifier(seed=seed, device=options.device)
    recogniser = SyntheticRecogniser(model, samples=options.samples, zsl=softmax, gzsl=softmax, seed=seed)
    given = asdict(model.config) | {"samples": options.samples}
    target = through(recogniser.remember(data), raw, data, options, model.device)
    return Trained(target, given, model.device)


def through(
    model: Any, raw: ZSLDataset, data: ZSLDataset, options: argparse.Namespace, device: torch.device | str
) -> EndToEnd:
    """A recogniser on scaled features behind the frozen backbone."""
    path = FeaturePath(backbone(options.backbone), raw)
    return EndToEnd(model, data.semantics, path.to(device))


def _settings(model: Any) -> dict[str, Any]:
    assert is_dataclass(model)
    kept = (f.name for f in fields(model) if f.init and f.name not in ("seed", "device", "backbone"))
    return {name: getattr(model, name) for name in kept}


METHODS: dict[str, Callable[..., Trained]] = {
    **{method: partial(on_pixels, method) for method in FROM_PIXELS},
    **{method: partial(on_features, method) for method in ("dem", "ldf")},
    **{method: partial(generative, method) for method in ("fgzsl", "mcgzsl", "abp")},
}


Row = tuple[str, float, RobustEvaluation, Attacked]


def runs(
    full: RobustEvaluation, few: RobustEvaluation, rare: RobustEvaluation, radii: Sequence[float], seed: int
) -> Iterator[Row]:
    """All attacks and radii, each with the evaluation that it ran in."""

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    yield "clean", 0, full, full.run()
    for radius in radii:
        found = {"noise": full.run(noise, radius=radius, kind="sign", generator=rng())}
        found["fgsm"] = full.run(fgsm, radius=radius)
        found["ifgsm"] = full.run(pgd, radius=radius)
        if radius <= MIDDLE:
            found["wrm"] = full.run(wrm, radius=radius)
            found["pgd_margin"] = full.run(pgd, radius=radius, steps=20, loss="margin")
            found["worst"] = worst_case(list(found.values()))
        yield from ((name, radius, full, run) for name, run in found.items())
    yield from smallest("deepfool", few, few.run(deepfool, norm="linf", steps=9), "linf", radii)
    yield from smallest("cw", few, few.run(cw, steps=9), "l2", radii)
    yield from smallest("zoo", rare, rare.run(zoo, steps=15, generator=rng()), "l2", radii)
    budget = {"attacks": ("apgd-ce", "apgd-t", "square"), "steps": 20, "queries": 500}
    yield "autoattack", MIDDLE, few, few.run(autoattack, radius=MIDDLE, generator=rng(), **budget)


def smallest(
    name: str, where: RobustEvaluation, run: Attacked, norm: str, radii: Sequence[float]
) -> Iterator[Row]:
    """An attack without a radius (0 in the curves, as in the paper's tables), and what it does within each.

    An l2 ball has the radius with which a root mean square of ρ in each pixel is within.
    """
    yield name, 0, where, run
    pixels = where.examples()[0][0].numel()
    for radius in radii:
        yield name, radius, where, run.beyond(radius * (pixels**0.5 if norm == "l2" else 1), norm)


def measure(full: RobustEvaluation, options: argparse.Namespace, seed: int) -> pd.DataFrame:
    """One row an attack and radius: accuracies, harmonic means with clean ones, transitions; all numbers.

    Clean accuracies behind HT1 and HHM are those of the same images.
    """
    few, rare = full.few(options.few), full.few(options.rare)
    clean = {id(where): where.run().accuracies for where in (full, few, rare)}
    rows = []
    for name, radius, where, run in runs(full, few, rare, options.radii, seed):
        row = {"attack": ATTACKS.index(name), "radius": radius, "images": len(run.standard.labels)}
        row |= run.accuracies._asdict() | with_clean(clean[id(where)], run.accuracies)
        moved = run.transitions["other side"]
        rows.append(row | {"seen_to_unseen": moved["seen"], "unseen_to_seen": moved["unseen"]})
    return pd.DataFrame(rows)


def headline(curves: pd.DataFrame) -> dict[str, float]:
    """Accuracies at the middle radius: under IFGSM, and under the worst case of the attacks of all images."""
    at = curves[curves["radius"] == MIDDLE].set_index("attack")
    columns = ("T1", "AU", "AS", "H", "HT1", "HHM")
    return {f"{m}_{name}": at.loc[ATTACKS.index(name), m] for name in ("ifgsm", "worst") for m in columns}


def check(full: RobustEvaluation, stranger: EndToEnd, options: argparse.Namespace) -> dict[str, float]:
    """The checks as numbers: ``check_<name>`` is 1 or 0, absent where undecided; then what they measured.

    The black boxes are PGD on ``stranger`` and the Square attack.
    """
    few = full.few(options.few // 2)
    x, y = few.examples()
    boxes = {"transfer": transfer(stranger(few.dataset.candidates))}
    boxes["square"] = partial(autoattack, attacks=("square",), queries=300)
    found, metrics = run_checks(few.generalised, x, y, radius=MIDDLE, black_boxes=boxes), {}
    for question, finding in zip(CHECKS, found, strict=True):
        if finding.passed is not None:
            metrics[f"check_{question.__name__}"] = float(finding.passed)
        metrics |= {f"{question.__name__}_{key}": value for key, value in finding.numbers.items()}
    return metrics


def sweep(few: RobustEvaluation) -> pd.DataFrame:
    """AU, AS and H by γ: clean (0), attacked without γ (1) and at every γ (2), on the margin."""
    attack = partial(pgd, radius=MIDDLE, loss="margin")
    table = few.sweep(gamma_grid(few.run(), few.run(attack)), attack)
    return table.assign(kind=table["kind"].map({"clean": 0, "fixed": 1, "adaptive": 2}))


def run(method: str, seed: int, options: argparse.Namespace) -> str:
    raw = load(options.dataset, options.root, semantics=options.semantics, images=True)
    name = name_in_records(raw, options)
    target = options.results_dir / "robustness" / record.filename(name, method, seed)
    if target.exists():
        return f"{target.name}: there already"
    watch = record.Stopwatch()
    try:
        trained = METHODS[method](raw, seed, options)
    except ArithmeticError as error:
        return f"{target.name}: not written. {error}"
    training = watch.seconds()
    where = {"seed": seed, "batch": options.batch, "device": trained.device}
    full = RobustEvaluation(trained.target, raw, images=options.images, **where)
    curves, data = measure(full, options, seed), raw.scaled()
    every = full.few(len(raw)).run().accuracies
    stranger = through(ESZSL().fit(data), raw, data, options, trained.device)
    metrics = every._asdict() | {"training_seconds": training} | headline(curves)
    metrics |= check(full, stranger, options)
    shared = {"dataset": raw, "method": method, "semantics": options.semantics, "seed": seed}
    shared |= {"parameters": trained.parameters | shown(options)}
    shared |= {"selection": "validation" if options.settings == "tuned" else "none"}
    shared |= {"device": trained.device, "command": command(options, method, seed)}
    balance = sweep(full.few(options.few))
    best = balance.groupby("kind")["H"].max()
    for_sweep = {"H_clean": best[0], "H_fixed": best[1], "H_adaptive": best[2]}
    watch.record("robustness_sweep", metrics=for_sweep, curves=balance, **shared).write(options.results_dir)
    watch.record("robustness", metrics=metrics, curves=curves, **shared).write(options.results_dir)
    worst = f"T1 {metrics['T1_worst']:.1f}, H {metrics['H_worst']:.1f}"
    clean = f"T1 {every.T1:.1f}, H {every.H:.1f}"
    return f"{target.name}: {clean}; at {MIDDLE}: {worst}; {watch.seconds():.0f} s"


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """What was set for the attacks."""
    chosen = ("backbone", "images", "few", "rare")
    given = {key: getattr(options, key) for key in chosen}
    return given | {"attacks": list(ATTACKS), "radii": list(options.radii), "radius_of_checks": MIDDLE}


def command(options: argparse.Namespace, method: str, seed: int) -> str:
    """What to type for this record alone."""
    words = [options.dataset, f"--methods {method} --seeds {seed}"]
    keys = ("images", "few", "rare", "backbone", "settings", "hidden", "samples")
    words += [f"--{key} {getattr(options, key)}" for key in keys]
    words += semantics_words(options)
    words += [f"--radii {' '.join(f'{r:g}' for r in options.radii)}"] if options.radii != RADII else []
    words += [f"--set '{options.set}'"] if options.set != "{}" else []
    return f"python results/robustness.py {' '.join(words)}"


def pixel_parser(description: str, methods: Iterable[str]) -> argparse.ArgumentParser:
    """The arguments of this experiment and its search."""
    made = parser(description, methods)
    made.add_argument("--images", type=int, default=200, help="attacked, of each test set")
    made.add_argument("--backbone", help="hangul for hangul, else lite0")
    made.add_argument("--set", default="{}", help='of methods from pixels, e.g. {"epochs": 40}')
    made.add_argument("--batch", type=int, default=250, help="images attacked at once")
    made.add_argument("--device", default="auto")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    options = made.parse_args()
    options.backbone = options.backbone or ("hangul" if options.dataset == "hangul" else "lite0")
    return options


def main() -> None:
    made = pixel_parser(__doc__.splitlines()[0], METHODS)
    few = "for DeepFool, CW, AutoAttack, sweep; half for checks"
    made.add_argument("--few", type=int, default=60, help=few)
    made.add_argument("--rare", type=int, default=8, help="for ZOO")
    made.add_argument("--radii", type=float, nargs="+", default=RADII, help=f"{MIDDLE} among them")
    made.add_argument("--settings", choices=["tuned", "default"], default="tuned", help="of --set's methods")
    made.add_argument("--hidden", type=int, default=4096, help="width of generators' hidden layers")
    made.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    options = parse(made)
    if MIDDLE not in options.radii or min(options.radii) <= 0:
        made.error(f"--radii: found {options.radii}; expected numbers above 0, {MIDDLE} among them")
    jobs = [(method, seed) for seed in options.seeds for method in options.methods]
    run_all(run, jobs, options)


if __name__ == "__main__":
    main()
