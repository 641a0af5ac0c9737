"""End to end from pixels, and what is counted under attack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor, nn

from zsl_lib.attacks import Counted, fgsm, noise, pgd
from zsl_lib.calibration import Calibrated
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.embedding.dem import DEM
from zsl_lib.embedding.eszsl import ESZSL
from zsl_lib.embedding.ldf import LDF
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate
from zsl_lib.models.backbone import hangul_backbone
from zsl_lib.robust import (
    Attacked,
    EndToEnd,
    FeaturePath,
    Outcome,
    RobustEvaluation,
    balance,
    gamma_grid,
    spread,
    with_clean,
    worst_case,
)


class TinyBackbone(nn.Module):
    """Six smooth features of images of 3 x 3 pixels."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(9, 6)
        with torch.no_grad():
            self.map.weight.copy_(torch.randn(6, 9, generator=rng(5)))
            self.map.bias.zero_()

    def features(self, images: Tensor) -> Tensor:
        return torch.tanh(self.map(images.flatten(1) - 0.5))


def pixel_dataset(noise: float = 0.3):
    """The made-up data set, with images and with features that TinyBackbone makes of them."""
    data, net = small_dataset(noise=noise), TinyBackbone()
    pattern = data.semantics @ torch.randn(4, 9, generator=rng(6))
    pixels = pattern[data.labels] + noise * torch.randn(len(data), 9, generator=rng(7))
    images = (255 * pixels.sigmoid()).round().to(torch.uint8).reshape(-1, 1, 3, 3)
    with torch.no_grad():
        features = net.features(images / 255)
    return replace(data, images=images, features=features), net


@pytest.fixture(scope="module")
def fitted():
    """Data, the path, and a recogniser on scaled features as a target."""
    data, net = pixel_dataset()
    scaled, path = data.scaled(), FeaturePath(net, data)
    return data, scaled, EndToEnd(ESZSL(0.1, 0.1).fit(scaled), scaled.semantics, path)


class Sampler:
    """A generative model that knows the mean feature of each class."""

    def __init__(self, data) -> None:
        self.means = {
            tuple(s.tolist()): data.features[data.labels == i] for i, s in enumerate(data.semantics)
        }

    def sample(self, semantics: Tensor, n: int, generator=None) -> Tensor:
        return torch.stack([self.means[tuple(s.tolist())][:1].expand(n, -1) for s in semantics])


def recognisers(scaled):
    softmax = SoftmaxClassifier(epochs=5)
    synthetic = SyntheticRecogniser(Sampler(scaled), samples=5, zsl=softmax, gzsl=softmax)
    yield ESZSL(0.1, 0.1).fit(scaled)
    yield DEM(epochs=5, device="cpu").fit(scaled)
    yield LDF(epochs=5, device="cpu").fit(scaled)
    yield synthetic.remember(scaled)


def test_pixels_give_the_scores_of_the_features(fitted):
    data, scaled, target = fitted
    x, classes = data.images[:20].float(), data.unseen
    for recogniser in recognisers(scaled):
        scores = replace(target, recogniser=recogniser)(classes)(x)
        expected = recogniser.scores(scaled.features[:20], scaled.semantics[classes]).float()
        if isinstance(recogniser, SyntheticRecogniser):
            scores = scores.softmax(1)
        torch.testing.assert_close(scores.detach(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_in_pixels_agree_with_finite_differences(fitted):
    data, scaled, _ = fitted
    path = FeaturePath(TinyBackbone().double(), data)
    x = (data.images[:2].double() + 0.3).requires_grad_()
    scores = EndToEnd(ESZSL(0.1, 0.1).fit(scaled), scaled.semantics, path)(data.candidates)
    assert torch.autograd.gradcheck(scores, (x,), eps=1e-3, atol=1e-6)


def test_the_backbone_of_hangul_gives_its_committed_features():
    """Within their storage in float16; and its gradient is the one of finite differences."""
    raw = load("hangul", images=True)
    raw = replace(raw, test_unseen=raw.test_unseen[::16], test_seen=raw.test_seen[::16])
    data, path = raw.scaled(), FeaturePath(hangul_backbone(), raw)
    model = ESZSL(100.0, 1.0).fit(data)
    target = EndToEnd(model, data.semantics, path)
    found = RobustEvaluation(target, raw).run().accuracies
    assert found == pytest.approx(evaluate(model, data), abs=100 / len(raw.test_unseen) + 0.01)  # an image
    x = raw.images[raw.test_unseen].float()
    with torch.no_grad():
        assert (path(x) - data.features[raw.test_unseen]).abs().max() < 1e-3

    exact = FeaturePath(hangul_backbone().double(), raw)
    scores = EndToEnd(model, data.semantics, exact)(raw.unseen)
    x = x[:1].double().requires_grad_()
    (slope,) = torch.autograd.grad(scores(x)[0, 3], x)
    for pixel in ((16, 16), (10, 20), (0, 0)):
        step = torch.zeros_like(x)
        step[0, 0][pixel] = 1e-4
        with torch.no_grad():
            difference = (scores(x + step)[0, 3] - scores(x - step)[0, 3]) / 2e-4
        assert slope[0, 0][pixel] == pytest.approx(difference.item(), rel=1e-3, abs=1e-9)


def test_attacks_leave_the_models_alone():
    data, net = pixel_dataset()
    scaled = data.scaled()
    model = DEM(epochs=2, device="cpu").fit(scaled)
    for p in model.net.parameters():
        p.grad = None
    target = EndToEnd(model, scaled.semantics, FeaturePath(net.train(), data))
    RobustEvaluation(target, data).run(pgd, radius=4.0)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    parameters = [*net.parameters(), *target.path.backbone.parameters(), *model.net.parameters()]
    assert all(p.grad is None for p in parameters)


def test_clean_accuracies_are_those_of_evaluate_and_attacks_lower_them(fitted):
    data, scaled, target = fitted
    evaluation = RobustEvaluation(target, data, batch=7)
    clean = evaluation.run().accuracies
    assert clean == pytest.approx(evaluate(target.recogniser, scaled))
    curve = [evaluation.run(pgd, radius=r).accuracies for r in (0.0, 4.0, 16.0, 128.0)]
    assert curve[0] == clean
    for metric in ("T1", "AU", "AS", "H"):
        values = [getattr(a, metric) for a in curve]
        assert values == sorted(values, reverse=True)
        assert values[-1] == 0


def test_an_attack_cannot_help_and_batches_do_not_matter(fitted):
    data, _, target = fitted

    def helpful(scores, x, y):
        """The image of the column's class that is scored best, by gradient descent on the loss."""
        best = data.images.float()[torch.stack([scores(data.images.float())[:, k].argmax() for k in y])]
        assert (scores(x).argmax(1) == y).all()
        return best

    one, all_ = (RobustEvaluation(target, data, batch=b) for b in (1, 100))
    clean, helped = one.run().accuracies, one.run(helpful).accuracies
    assert all(a <= b for a, b in zip(helped, clean, strict=True))
    assert one.run(fgsm, radius=8.0).accuracies == pytest.approx(all_.run(fgsm, radius=8.0).accuracies)


def outcome(predictions, labels, linf=None):
    n = len(labels)
    size = torch.zeros(n) if linf is None else torch.tensor(linf)
    scores = nn.functional.one_hot(torch.tensor(predictions), 4).float()
    return Outcome(torch.tensor(predictions), torch.tensor(labels), scores, torch.arange(4), size, 2 * size)


SEEN = torch.tensor([0, 1])


def test_accuracies_transitions_and_harmonic_means_by_hand():
    """Classes 0, 1 are seen and 2, 3 unseen; class 2 has one image of right, class 3 none."""
    generalised = outcome([0, 1, 1, 0, 2, 0, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3])
    run = Attacked(outcome([2, 3, 2, 2], [2, 2, 3, 3]), generalised, SEEN)
    assert run.accuracies == pytest.approx((25, 50, 50, 50))
    assert run.transitions.loc["seen"].tolist() == [50, 50, 0]
    assert run.transitions.loc["unseen"].tolist() == [50, 25, 25]
    clean = run.accuracies._replace(T1=75, H=100)
    assert with_clean(clean, run.accuracies) == {"HT1": pytest.approx(37.5), "HHM": pytest.approx(200 / 3)}


def test_worst_case_and_minimal_norms_by_hand():
    labels = [0, 1, 2, 3]
    a = Attacked(*[outcome([1, 1, 2, 3], labels, [4.0, 0.0, 0.0, 2.0])] * 2, SEEN)
    b = Attacked(*[outcome([0, 0, 2, 3], labels, [0.0, 5.0, 0.0, 0.0])] * 2, SEEN)
    worst = worst_case([a, b])
    assert worst.generalised.right.tolist() == [False, False, True, True]
    assert worst.generalised.linf.tolist() == [4, 5, 0, 0]
    assert worst.beyond(4.0, "linf").generalised.right.tolist() == [False, True, True, True]
    assert worst.beyond(3.9, "linf").generalised.right.tolist() == [True] * 4
    assert worst.beyond(8.0, "l2").generalised.right.tolist() == [False, True, True, True]


def test_the_sweep_against_calibration_of_the_features(fitted):
    data, scaled, target = fitted
    evaluation = RobustEvaluation(target, data)
    gammas = gamma_grid(evaluation.run(), count=5)
    table = evaluation.sweep(gammas, pgd, radius=4.0).set_index(["kind", "gamma"])
    assert 0.0 in gammas
    assert gammas == sorted(gammas)
    for gamma in gammas:
        model = Calibrated(target.recogniser, scaled.semantics[data.seen], gamma)
        assert table.loc[("clean", gamma), "H"] == pytest.approx(evaluate(model, scaled).H)
        assert table.loc[("adaptive", gamma), "AU"] <= table.loc[("clean", gamma), "AU"]
        assert table.loc[("adaptive", gamma), "AS"] <= table.loc[("clean", gamma), "AS"]
    attacked = evaluation.run(pgd, radius=4.0)
    assert table.loc[("adaptive", 0.0)].to_dict() == pytest.approx(balance(attacked.generalised, data.seen))
    assert table.loc[("fixed", 0.0), "AU"] <= table.loc[("clean", 0.0), "AU"]
    assert evaluation.sweep([1e9], pgd, radius=4.0)["AS"].tolist() == [0, 0, 0]


def test_fewer_images_are_spread_over_classes_and_all_classes_stay_candidates(fitted):
    data, _, target = fitted
    index, labels = data.test_unseen, data.labels
    small, large = (spread(index, labels, n, seed=1) for n in (2, 11))
    assert len(labels[small].unique()) == 2
    counts = torch.bincount(labels[large])[data.unseen]
    assert (counts.max() - counts.min(), counts.sum()) == (1, 11)
    assert set(small.tolist()) < set(large.tolist()) < set(index.tolist())
    assert not torch.equal(large, spread(index, labels, 11, seed=2))
    assert torch.equal(spread(index, labels, 10**6), index.sort().values)

    evaluation = RobustEvaluation(target, data)
    few = evaluation.few(4)
    assert len(few.run().standard.labels) == 4
    assert len(few.run().generalised.labels) == 8
    assert torch.equal(few.run().generalised.candidates, data.candidates)
    assert len(evaluation.run().standard.labels) == len(index)
    x, y = few.examples()
    assert x.max() > 1
    assert torch.equal(data.candidates[y], few.run().generalised.labels)


def test_errors(fitted):
    data, scaled, target = fitted
    with pytest.raises(DataError, match=r"images: found 0, expected 1 or more"):
        RobustEvaluation(target, data, images=0)
    with pytest.raises(DataError, match="images: found none"):
        RobustEvaluation(target, replace(data, images=None))
    with pytest.raises(DataError, match="features: found width 4, expected 6"):
        FeaturePath(TinyBackbone(), replace(data, features=data.features[:, :4]))
    with pytest.raises(DataError, match="features: found hidden ones"):
        FeaturePath(TinyBackbone(), replace(data, mask=torch.ones_like(data.features, dtype=torch.bool)))
    with pytest.raises(DataError, match="without score_function"):
        EndToEnd(Calibrated(target.recogniser, scaled.semantics, 0.1), scaled.semantics)(data.unseen)
    neighbours = SyntheticRecogniser(Sampler(scaled), samples=25).remember(scaled)
    with pytest.raises(DataError, match=r"found KNeighborsClassifier, expected a softmax"):
        EndToEnd(neighbours, scaled.semantics, target.path)(data.unseen)
    with pytest.raises(DataError, match="radius: found -1"):
        RobustEvaluation(target, data).run(noise, radius=-1.0, generator=rng())


def test_clean_scores_are_asked_for_once():
    data, net = pixel_dataset()
    scaled = data.scaled()
    target = EndToEnd(ESZSL(0.1, 0.1).fit(scaled), scaled.semantics, FeaturePath(net, data))
    asked: list[Counted] = []

    def counted(classes: Tensor) -> Counted:
        asked.append(Counted(target(classes)))
        return asked[-1]

    evaluation = RobustEvaluation(counted, data, batch=4)
    clean, attacked = evaluation.run(), evaluation.run(fgsm, radius=20.0)
    n = [len(run.labels) for run in (attacked.standard, attacked.generalised)]
    right = [int(run.right.sum()) for run in (clean.standard, clean.generalised)]
    assert [scores.images for scores in asked] == [a + 2 * b for a, b in zip(n, right, strict=True)]
    again = evaluation.run()
    assert torch.equal(again.generalised.scores, clean.generalised.scores)  # attacks have not written there
    assert attacked.generalised.right.sum() < clean.generalised.right.sum()
    few = evaluation.few(3)
    assert torch.equal(
        few.run().standard.scores, clean.standard.scores[torch.isin(evaluation.unseen, few.unseen)]
    )
