"""Poisoned tables: score functions of the table, evaluation in both spaces, surrogates, who becomes whom."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn

from zsl_lib.attacks import prototypes
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.embedding import available
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.relation import RelationConfig, RelationLearner
from zsl_lib.metrics import evaluate
from zsl_lib.poison import GeneratorMean, PoisonEvaluation, becomes, table_scores, with_table
from zsl_lib.robust import EndToEnd, FeaturePath, Outcome, with_clean

NO_GRADIENT = {"dap"}
"""Rounds descriptions to 0 and 1."""


@pytest.fixture(scope="module")
def data():
    return small_dataset(seen=6, unseen=4, per_class=12, semantic_dim=5, noise=0.2).scaled()


@pytest.fixture(scope="module")
def eszsl(data):
    return ESZSL(0.1, 0.1).fit(data)


class Flat(nn.Module):
    """A backbone of 2 x 2 pixels."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(4) + 0.1 * torch.randn(4, 4, generator=rng(5)))
            self.map.bias.fill_(0.1)

    def features(self, images: Tensor) -> Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.map(x.flatten(1)).relu()


def with_images(data):
    """Images that show the first four attributes."""
    shown = (data.semantics[data.labels, :4] * 200).byte().reshape(-1, 1, 2, 2)
    return replace(data, images=shown, features=None)


def relation(data, **settings):
    config = RelationConfig(
        **{"embedding": 6, "attribute_hidden": 8, "hidden": 8, "epochs": 2, "batch_size": 16} | settings
    )
    return RelationLearner(config, seed=0, device="cpu", backbone=Flat()).fit(data, progress=False)


# --- score functions of the table --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in available() if name not in NO_GRADIENT])
def test_every_compatibility_model_has_scores_of_its_table(name, data):
    """For one table those of ``scores``; for a table each, the same as one query at a time."""
    kind = available()[name]
    model = (kind(epochs=2) if hasattr(kind, "epochs") else kind()).fit(data)
    x, table = data.features[data.test_unseen[:5]], data.semantics[data.unseen]
    (scores,) = table_scores(model, x)
    torch.testing.assert_close(scores(table), model.scores(x, table))
    tables = table + 0.1 * torch.randn(5, *table.shape, generator=rng())
    expected = torch.stack([model.scores(x[[i]], tables[i])[0] for i in range(5)])
    (one_by_one,) = table_scores(model, x, loop=True)
    torch.testing.assert_close(one_by_one(tables), expected, rtol=1e-4, atol=1e-5)
    try:
        found = scores(tables)
    except RuntimeError:
        assert name in {"cmt"}  # asks which classes are seen
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    moved = prototypes.fgsm(
        scores,
        table,
        torch.zeros(5, dtype=torch.int64),
        radius=0.1,
        threat="universal",
        which=torch.arange(4),
    )
    assert moved.sizes.max() > 0.01


def test_a_method_that_rounds_descriptions_has_no_gradient(data):
    scores = table_scores(available()["dap"]().fit(data), data.features[:5])
    table = data.semantics[data.unseen]
    with pytest.raises(DataError, match="no gradient in the table"):
        prototypes.fgsm(scores, table, torch.zeros(5, dtype=torch.int64), radius=1.0, threat="per_image")


@pytest.mark.parametrize("combine", ["concatenation", "product", "elementwise"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_relation_network_embeds_its_images_once(combine, frozen, data):
    data = with_images(data)
    model = relation(data, combine=combine, freeze=frozen, temperature=1.5)
    x, table = data.images[data.test_unseen[:6]], data.semantics[data.candidates]
    calls = []
    model.net.backbone.map.register_forward_hook(lambda *_: calls.append(1))
    fast = table_scores(model, x, batch=4)
    assert len(fast) == len(calls) == 2
    torch.testing.assert_close(torch.cat([part(table) for part in fast]), model.scores(x, table))
    calls.clear()
    tables = table + 0.1 * torch.randn(6, *table.shape, generator=rng())
    found = torch.cat([fast[0](tables[:4]), fast[1](tables[4:])])
    assert calls == []
    expected = torch.stack([model.scores(x[[i]], tables[i])[0] for i in range(6)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast[0][torch.tensor([2])](table), model.scores(x[2:3], table))


def test_features_do_for_a_relation_network_whose_backbone_was_left_alone(data):
    images = with_images(data)
    model = relation(images, freeze=True)
    x = images.images[:5]
    features = model.net.backbone.features(x)
    table = images.semantics
    (a,), (b,) = table_scores(model, x), table_scores(model, features.detach())
    torch.testing.assert_close(a(table), b(table))
    with pytest.raises(DataError, match="x: found features, expected images, since the backbone has learned"):
        table_scores(relation(images), features)


def test_end_to_end_from_pixels_is_the_recogniser_on_its_features(data):
    images = with_images(data)
    with torch.no_grad():
        features = Flat().features(images.images)
    raw = replace(images, features=features)
    model, path = ESZSL(0.1, 0.1).fit(raw.scaled()), FeaturePath(Flat(), raw)
    target = EndToEnd(model, raw.semantics, path)
    table = raw.semantics[raw.unseen]
    (found,) = table_scores(target, raw.images[:7].float())
    torch.testing.assert_close(
        found(table), model.scores(raw.scaled().features[:7], table), rtol=1e-4, atol=1e-5
    )
    assert not found.x.requires_grad


def test_what_has_no_scores_of_a_table(data):
    with pytest.raises(DataError, match="table_scores: found object without score_function"):
        table_scores(object(), data.features)
    with pytest.raises(DataError, match="0 queries in batches of 250"):
        table_scores(ESZSL().fit(data), data.features[:0])


# --- evaluation ------------------------------------------------------------------------------------------


def test_without_an_attack_it_is_the_evaluation(data, eszsl):
    assert PoisonEvaluation(eszsl, data).run().accuracies == evaluate(eszsl, data)
    images = with_images(data)
    model = relation(images)
    assert PoisonEvaluation(model, images).run().accuracies == evaluate(model, images)


@pytest.mark.parametrize("threat", ["per_image", "universal"])
def test_accuracies_under_attack_by_a_plain_loop(data, eszsl, threat):
    """Unseen rows of all candidates, queries one by one through ``scores``."""
    evaluation = PoisonEvaluation(eszsl, data, batch=7, separable=True)
    attack = partial(prototypes.ifgsm, steps=3, direction="gradient")
    found = evaluation.run(attack, threat=threat, which="unseen", radius=0.3).accuracies
    candidates = data.candidates
    index = torch.cat([data.test_unseen, data.test_seen])
    x, y = data.features[index], torch.searchsorted(candidates, data.labels[index])
    table, which = data.semantics[candidates], torch.isin(candidates, data.unseen)
    clean = eszsl.scores(x, table)
    right = clean.argmax(1) == y
    if threat == "universal":
        made = attack(table_scores(eszsl, x), table, y, threat=threat, which=which, radius=0.3)
        right = eszsl.scores(x, made.tables).argmax(1) == y
    else:
        for i in right.nonzero().flatten().tolist():
            made = attack(table_scores(eszsl, x[[i]]), table, y[[i]], threat=threat, which=which, radius=0.3)
            right[i] = eszsl.scores(x[[i]], made.tables[0]).argmax() == y[i]
    for name, side in (("AU", data.test_unseen), ("AS", data.test_seen)):
        mine = torch.isin(index, side)
        shares = [
            right[mine & (data.labels[index] == c)].double().mean().item() for c in data.labels[side].unique()
        ]
        assert getattr(found, name) == pytest.approx(100 * sum(shares) / len(shares)), name


def test_attacks_per_image_never_help_and_harm_more_than_one_table(data, eszsl):
    evaluation = PoisonEvaluation(eszsl, data, separable=True)
    clean = evaluation.run().accuracies
    options = {"which": "seen and unseen", "direction": "gradient"}
    for radius in (0.0, 0.1, 0.3):
        each = evaluation.run(prototypes.ifgsm, threat="per_image", radius=radius, **options).accuracies
        one = evaluation.run(prototypes.ifgsm, threat="universal", radius=radius, **options).accuracies
        assert all(a <= b for a, b in zip(each, clean, strict=True))
        if radius == 0:
            assert each == one == clean
        else:
            assert each.T1 < one.T1
            assert each.AS < one.AS
    assert each.T1 == 0.0


def test_which_rows_move(data, eszsl):
    evaluation = PoisonEvaluation(eszsl, data, separable=True)
    clean = evaluation.run().accuracies
    run = partial(evaluation.run, partial(prototypes.ifgsm, direction="gradient"), radius=0.3)
    own = run(threat="per_image", which="own").accuracies
    unseen_alone = run(threat="per_image", which="own unseen").accuracies
    assert unseen_alone.AS == clean.AS
    assert unseen_alone.T1 == own.T1 < clean.T1
    assert unseen_alone.AU == own.AU
    assert own.AS < clean.AS
    assert run(threat="universal", which="seen").accuracies.T1 == clean.T1
    everyone = run(threat="universal", which="seen and unseen")
    assert everyone.generalised.l2.max() <= 0.3 + 1e-6
    classes = data.unseen[:1]
    one = run(threat="universal", which=classes)
    assert one.accuracies.T1 < clean.T1
    made = evaluation.poison(
        prototypes.fgsm, space="generalised", threat="universal", which=classes, radius=0.3
    )
    moved = (made.tables != data.semantics[data.candidates]).any(1)
    assert data.candidates[moved].tolist() == classes.tolist()


def test_values_of_one_a_class_follow_their_classes(data, eszsl):
    radius = torch.zeros(len(data.semantics))
    radius[data.unseen[1]] = 0.3
    evaluation = PoisonEvaluation(eszsl, data)
    for space, candidates in (("standard", data.unseen), ("generalised", data.candidates)):
        made = evaluation.poison(prototypes.fgsm, space=space, threat="universal", radius=radius)
        moved = (made.tables != data.semantics[candidates]).any(1)
        assert candidates[moved].tolist() == [int(data.unseen[1])]


def test_fewer_images_are_some_of_them(data, eszsl):
    few = PoisonEvaluation(eszsl, data, images=8).run()
    assert len(few.standard.labels) == 8
    assert len(few.generalised.labels) == 16


def test_a_table_of_results_states_the_threat_and_the_rows(data, eszsl):
    evaluation = PoisonEvaluation(eszsl, data)
    attacks = {"FGSM": prototypes.fgsm, "random": prototypes.noise}
    found = evaluation.table(attacks, which=("unseen", "seen and unseen"), radius=0.3, generator=rng())
    assert len(found) == 1 + 2 * 2 * 2
    assert found["attack"][0] == "none"
    assert set(found["threat"][1:]) == {"per_image", "universal"}
    assert set(found["knowledge"][1:]) == {"all"}
    assert set(found["radius"][1:]) == {0.3}
    clean, row = evaluation.run().accuracies, found.iloc[1]
    run = evaluation.run(prototypes.fgsm, threat="per_image", which="unseen", radius=0.3).accuracies
    assert {key: row[key] for key in ("HT1", "HHM")} == pytest.approx(with_clean(clean, run))
    again = evaluation.table(attacks, which=("unseen", "seen and unseen"), radius=0.3, generator=rng())
    assert found.equals(again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threat": None}, "threat: found None, expected 'per_image' or 'universal'"),
        ({"which": "zebra"}, "which: found 'zebra', expected one of own, own unseen, seen, unseen"),
        ({"which": torch.tensor([77])}, "which: found 1 classes, 1 of them no candidates"),
        ({"which": torch.tensor([], dtype=torch.int64)}, "which: found 0 classes"),
        ({"which": "own", "threat": "universal"}, "which: found None, expected rows, since one table"),
        ({"radius": -1.0}, "radius: found -1"),
    ],
)
def test_what_does_not_fit_is_named(data, eszsl, settings, message):
    given = {"threat": "universal", "radius": 0.1} | settings
    with pytest.raises(DataError, match=message):
        PoisonEvaluation(eszsl, data).run(prototypes.fgsm, **given)


# --- generators of features --------------------------------------------------------------------------------


class Linear:
    """A generator that is known: x = A c + B z."""

    device = torch.device("cpu")
    config = ABPConfig(latent_dim=2)

    def __init__(self, k: int, dim: int) -> None:
        self.A, self.B = torch.randn(k, dim, generator=rng(1)), 0.3 * torch.randn(2, dim, generator=rng(2))

    def net(self, c: Tensor, z: Tensor) -> Tensor:
        return c @ self.A + z @ self.B

    def sample(self, semantics: Tensor, n: int, generator=None) -> Tensor:
        z = torch.randn(len(semantics), n, 2, generator=generator)
        return self.net(semantics[:, None], z)


@pytest.fixture(scope="module")
def generated():
    """A data set that a known generator made, and the generator."""
    data, model = small_dataset(unseen=8, semantic_dim=10, dim=12), Linear(10, 12)
    features = model.sample(data.semantics[data.labels], 1, rng(3))[:, 0]
    return replace(data, features=features), model


def test_the_mean_of_a_generator_by_hand(generated):
    data, model = generated
    surrogate = GeneratorMean(model, draws=3)
    table, x = data.semantics[:4], data.features[:5]
    mean = torch.stack([model.net(row.expand(3, -1), surrogate.z).mean(0) for row in table])
    expected = -(x[:, None] - mean).square().sum(2) / 2 + x.square().sum(1, keepdim=True) / 2
    torch.testing.assert_close(surrogate.scores(x, table), expected, rtol=1e-4, atol=1e-4)
    (each,) = table_scores(surrogate, x)
    torch.testing.assert_close(each(table.expand(5, -1, -1)), expected, rtol=1e-4, atol=1e-4)


def test_a_learned_generator_has_a_gradient_in_its_semantics(data):
    config = ABPConfig(latent_dim=2, hidden=16, epochs=1, langevin_steps=1)
    model = ABP(config, seed=0, device="cpu").fit(data, progress=False)
    x, table = data.features[:3], data.semantics[data.unseen].clone().requires_grad_()
    (slope,) = torch.autograd.grad(GeneratorMean(model).score_function(table)(x).sum(), table)
    assert bool((slope.norm(dim=1) > 0).all())
    with pytest.raises(DataError, match="GeneratorMean: found no generator"):
        GeneratorMean(ABP(config))


def test_a_table_made_for_a_surrogate_harms_a_refitted_classifier(generated):
    """More than random poison does; what is judged is the classifier on samples from the poisoned rows."""
    data, model = generated
    softmax = SoftmaxClassifier(epochs=30, lr=1e-2)
    victim = SyntheticRecogniser(model, samples=20, zsl=softmax, gzsl=softmax).remember(data)
    evaluation = PoisonEvaluation(GeneratorMean(model), data, victim=victim, separable=True)
    clean = evaluation.run().accuracies
    assert clean == evaluate(victim, data)
    options = {"threat": "universal", "radius": 0.6}
    attacked = evaluation.run(prototypes.ifgsm, **options)
    random = [
        evaluation.run(prototypes.noise, generator=rng(seed), **options).accuracies.T1 for seed in range(3)
    ]
    lost = clean.T1 - attacked.accuracies.T1
    assert lost > 20 + max(clean.T1 - t1 for t1 in random)
    made = evaluation.poison(prototypes.ifgsm, space="standard", **options)
    poisoned = with_table(data, data.unseen, made.tables)
    assert evaluate(victim, poisoned).T1 == attacked.accuracies.T1
    assert torch.equal(poisoned.semantics[data.seen], data.semantics[data.seen])
    with pytest.raises(DataError, match="threat: found 'per_image', expected 'universal'"):
        evaluation.run(prototypes.ifgsm, threat="per_image", radius=0.1)


def test_poison_before_training_is_a_data_set_with_another_table(data, eszsl):
    evaluation = PoisonEvaluation(eszsl, data)
    made = evaluation.poison(
        prototypes.ifgsm, space="generalised", threat="universal", which="seen", radius=0.4
    )
    poisoned = with_table(data, data.candidates, made.tables)
    before = evaluate(ESZSL(0.1, 0.1).fit(poisoned), poisoned)
    assert evaluate(eszsl, poisoned).AS < before.AS  # the model learns what the poisoned rows mean
    assert before != evaluate(eszsl, data)


# --- who becomes whom --------------------------------------------------------------------------------------


def outcome(predictions: list[int], labels: list[int]) -> Outcome:
    still = torch.zeros(len(labels))
    scores, candidates = torch.zeros(len(labels), 3), torch.arange(3)
    return Outcome(torch.tensor(predictions), torch.tensor(labels), scores, candidates, still, still)


def test_who_becomes_whom_by_hand():
    labels = [0, 0, 0, 0, 1, 1, 2]
    before, after = outcome([0, 0, 0, 1, 1, 1, 0], labels), outcome([1, 1, 2, 1, 0, 1, 2], labels)
    found = becomes(before, after, ["horse", "zebra", "cow"])
    assert found.values.tolist() == [
        ["horse", "zebra", 25.0, 75.0, 50.0],
        ["zebra", "horse", 0.0, 50.0, 50.0],
        ["horse", "cow", 0.0, 25.0, 25.0],
    ]
    with pytest.raises(DataError, match="other queries"):
        becomes(before, outcome([0], [0]), ["horse", "zebra", "cow"])


class Nearest:
    """Classes look as their attributes say, the last of these twice as clearly."""

    def score_function(self, semantics: Tensor):
        looks = semantics * torch.tensor([1.0, 1.0, 1.0, 2.0])
        return lambda x: -(x[:, None] - looks).square().sum(2) / 2


def test_a_class_without_its_mark_becomes_the_one_that_never_had_it():
    """A zebra without stripes is taken for a horse."""
    data = small_dataset(seen=2, unseen=3, per_class=30, semantic_dim=4, dim=4)
    horse, zebra, cow = data.unseen.tolist()
    table = torch.ones(5, 4)
    table[horse], table[zebra], table[cow] = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]])
    looks = table * torch.tensor([1.0, 1.0, 1.0, 2.0])
    features = looks[data.labels] + 0.2 * torch.randn(len(data), 4, generator=rng(8))
    data = replace(data, semantics=table, features=features)
    evaluation = PoisonEvaluation(Nearest(), data, separable=True)
    assert evaluation.run().accuracies.T1 > 95
    options = {"threat": "universal", "which": torch.tensor([zebra])}
    attack = partial(prototypes.flip, count=1, shortlist=4)
    made = evaluation.poison(attack, space="standard", **options)
    assert made.attributes.tolist() == [3]
    names = ["?"] * 5
    names[horse], names[zebra], names[cow] = "horse", "zebra", "cow"
    pairs = becomes(evaluation.run().standard, evaluation.run(attack, **options).standard, names)
    assert pairs[["class", "becomes"]].values.tolist() == [["zebra", "horse"]]
    assert pairs["more"][0] > 95
