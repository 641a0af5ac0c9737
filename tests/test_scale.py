"""Recognition block by block gives what the same recogniser gives with all features in memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional as F

from zsl_lib import scale
from zsl_lib.classify import SoftmaxClassifier, SyntheticRecogniser, knn, row_key
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.metrics import evaluate
from zsl_lib.scale import (
    NONE,
    ApproximateNeighbours,
    NearestNeighbours,
    Prototypes,
    Stream,
    StreamClassifier,
    StreamedRecogniser,
    StreamedSoftmax,
)

SAMPLES = 25
BLOCKS = [1, 26, 60, 10_000]
LINUX_ONLY = pytest.mark.skipif(
    sys.platform == "darwin", reason="the wheels of torch and FAISS bring an OpenMP each"
)


class Fixed:
    """The n-th feature of a class is always the same, so that blocks of any size give the same features."""

    def __init__(self, dataset: ZSLDataset, spread: float = 0.1) -> None:
        self.semantics, classes = dataset.semantics, range(len(dataset.semantics))
        self.means = torch.stack([dataset.features[dataset.labels == c].mean(0) for c in classes])
        self.noise = spread * torch.randn(len(classes), 300, self.means.shape[1], generator=rng(5))
        self.asked: list[int] = []

    def fit(self, dataset: ZSLDataset, **_: object) -> Fixed:
        return self

    def sample(self, semantics: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        self.asked.append(len(semantics) * n)
        classes = (semantics[:, None] == self.semantics).all(2).nonzero()[:, 1]
        return self.means[classes][:, None] + self._noise(classes, n, generator)

    def _noise(self, classes: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
        return self.noise[classes, :n]


class Random(Fixed):
    """The same classes with fresh noise from the generator."""

    def _noise(self, classes: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
        return 0.1 * torch.randn(len(classes), n, self.means.shape[1], generator=generator)


@pytest.fixture
def data() -> ZSLDataset:
    return small_dataset(seen=4, unseen=6, per_class=12, noise=0.2)


def streamed(data: ZSLDataset, model: type[Fixed] = Fixed, **options) -> StreamedRecogniser:
    options = {"samples": SAMPLES, "zsl": NearestNeighbours(5, "cpu")} | options
    return StreamedRecogniser(model(data), **options).remember(data)


def stream(data: ZSLDataset, classes: Tensor | None = None, **options) -> Stream:
    return streamed(data, **options).stream(data.semantics[data.unseen if classes is None else classes])


# --- the stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
def test_a_pass_is_the_training_set_of_the_recogniser_in_memory(data, block):
    whole = SyntheticRecogniser(Fixed(data), samples=SAMPLES).remember(data)
    for classes in (data.unseen, data.candidates):
        x, y = whole.training_set(data.semantics[classes])
        made = stream(data, classes, block=block)
        blocks = list(made)
        assert max(len(part) for part, _ in blocks) <= max(block, SAMPLES)
        assert made.rows == len(x) == sum(len(part) for part, _ in blocks)
        assert made.counts.tolist() == y.bincount().tolist()
        found_x, found_y = (torch.cat(part) for part in zip(*blocks, strict=True))
        assert torch.equal(found_y, made.labels(torch.arange(len(x))))
        for c in range(len(classes)):
            assert torch.equal(found_x[found_y == c].sort(0).values, x[y == c].sort(0).values)


def test_one_block_draws_what_the_recogniser_in_memory_draws(data):
    whole = SyntheticRecogniser(Random(data), samples=SAMPLES, seed=3).remember(data)
    x, y = whole.training_set(data.semantics[data.unseen])
    ((found, labels),) = stream(data, model=Random, seed=3)
    assert torch.equal(found[labels.argsort(stable=True)], x)
    assert torch.equal(labels.sort().values, y)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-30]), min_size=3, max_size=3), min_size=1
    )
)
def test_rows_are_put_in_the_order_of_their_keys(rows):
    semantics = torch.tensor(rows)
    expected = sorted(range(len(rows)), key=lambda i: row_key(semantics[i]))
    assert scale._by_key(semantics).tolist() == expected


def test_every_pass_gives_the_same_features(data):
    made = stream(data, data.candidates, model=Random, block=60)
    for (a, _), (b, _) in zip(made, made, strict=True):
        assert torch.equal(a, b)


def test_no_more_than_a_block_is_asked_of_the_model(data):
    made = streamed(data, block=60)
    made.scores(data.features, data.semantics[data.unseen])
    assert made.model.asked == [50, 50, 50]  # two classes of 25 samples at a time
    made.model.asked.clear()
    made.stream(data.semantics[data.unseen]).draw(150, rng())
    assert made.model.asked == [60, 60, 30]


def test_what_is_drawn_comes_in_proportion_and_from_its_class(data):
    made = stream(data, data.candidates, model=Random, samples=SAMPLES)
    n = 20_000
    x, y = made.draw(n, rng())
    share = made.counts / made.rows
    error = (share * (1 - share) / n).sqrt()
    assert ((y.bincount(minlength=len(share)) / n - share).abs() < 5 * error).all()
    for i, c in enumerate(data.candidates):
        real = data.features[data.trainval[data.labels[data.trainval] == c]]
        if c in data.seen:
            assert torch.equal(x[y == i].unique(dim=0), real.unique(dim=0))
        else:
            assert len(x[y == i].unique(dim=0)) == (y == i).sum()


# --- exact neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "entries"), [(1, 2**24), (26, 1), (60, 300), (10_000, 2**24)])
def test_votes_are_those_of_scikit_learn_on_all_features(data, block, entries, monkeypatch):
    monkeypatch.setattr(scale, "ENTRIES", entries)  # some queries at a time
    neighbours = NearestNeighbours(5, "cpu")
    made = streamed(data, block=block, zsl=neighbours, gzsl=neighbours)
    whole = SyntheticRecogniser(Fixed(data), samples=SAMPLES, zsl=knn(5), gzsl=knn(5)).remember(data)
    for classes in (data.unseen, data.candidates):
        found = made.scores(data.features, data.semantics[classes])
        torch.testing.assert_close(found, whole.scores(data.features, data.semantics[classes]))


def test_neighbours_by_brute_force_in_double(data):
    made = stream(data, block=26)
    x = torch.cat([part for part, _ in made]).double()
    queries = data.features[data.test_unseen]
    near, rows = NearestNeighbours(20, "cpu").fit(made).neighbours(queries)
    cosine = F.normalize(queries.double()) @ F.normalize(x).T
    expected, order = cosine.sort(descending=True)
    torch.testing.assert_close(near.double(), expected[:, :20], rtol=0, atol=1e-6)
    assert torch.equal(rows, order[:, :20])


def test_more_neighbours_than_a_block_has(data):
    small, large = (NearestNeighbours(40, "cpu").fit(stream(data, block=b)) for b in (1, 10_000))
    (near, rows), (expected, same) = small.neighbours(data.features), large.neighbours(data.features)
    torch.testing.assert_close(near, expected)
    assert torch.equal(rows.sort().values, same.sort().values)  # alike similar ones may change places


def test_the_order_of_the_candidates_permutes_the_scores(data):
    order = torch.randperm(len(data.unseen), generator=rng(1))
    semantics = data.semantics[data.unseen]
    made = streamed(data, Random, block=60)
    torch.testing.assert_close(
        made.scores(data.features, semantics[order]), made.scores(data.features, semantics)[:, order]
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_best_voted_are_those_of_a_stable_sort(values):
    k, classes = values.draw(st.integers(1, 8)), values.draw(st.integers(1, 5))
    n = values.draw(st.integers(1, k))
    labels = values.draw(st.lists(st.integers(NONE, classes - 1), min_size=k, max_size=k))
    votes, named = scale._rank(torch.tensor([labels]), classes, n)
    count = [labels.count(c) for c in range(classes)]
    order = sorted((c for c in range(classes) if count[c]), key=lambda c: -count[c])[:n]
    assert named.tolist() == [order + [NONE] * (n - len(order))]
    assert votes.tolist() == [[count[c] for c in order] + [0] * (n - len(order))]


def test_the_papers_classifiers_are_the_defaults(data):
    made = StreamedRecogniser(Fixed(data), seed=3)
    reference = SyntheticRecogniser(Fixed(data), seed=3)
    assert (made.samples, made.zsl.k) == (reference.samples, reference.zsl.n_neighbors) == (300, 20)
    settings = {k: v for k, v in reference.gzsl.get_params().items() if k != "after_epoch"}
    assert {k: getattr(made.gzsl, k) for k in settings} == settings


# --- softmax and prototypes ----------------------------------------------------------------------------


def test_the_streamed_softmax_agrees_with_the_one_in_memory(data):
    """Features that are never seen twice, against many that are: the same loss on new ones."""
    size = {"epochs": 20, "lr": 0.02, "device": "cpu"}
    made = stream(data, data.candidates, model=Random, samples=300, block=600)
    ours = StreamedSoftmax(**size).fit(made)
    x, y = (torch.cat(part) for part in zip(*made, strict=True))
    theirs = SoftmaxClassifier(**size).fit(x.numpy(), y.numpy())
    new_x, new_y = made.draw(4000, rng(9))
    found, expected = ours.scores(new_x), torch.from_numpy(theirs.predict_proba(new_x.numpy()))
    losses = [log_loss(new_y, p / p.sum(1, keepdim=True)) for p in (found.double(), expected.double())]
    chance = float(np.log(len(data.candidates)))
    assert losses[0] < 0.7 * chance
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert (found - expected).abs().mean() < 0.01


def test_an_epoch_is_a_pass_of_features(data):
    made = stream(data, block=60)
    classifier = StreamedSoftmax(epochs=2, batch_size=40, device="cpu")
    assert classifier.steps(made) == 8  # 150 features an epoch, the last batch too
    seen = []
    made.draw, draw = lambda n, g: (seen.append(n), draw(n, g))[1], made.draw
    classifier.fit(made)
    assert sum(seen) == 8 * 40
    assert max(seen) == 40  # the block holds one batch


def test_the_seed_decides_the_streamed_softmax(data):
    a, b, c = (
        StreamedSoftmax(epochs=1, seed=s, device="cpu").fit(stream(data, model=Random)).weight_
        for s in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_prototypes_are_means(data):
    made = stream(data, data.candidates, block=26)
    x, y = (torch.cat(part) for part in zip(*made, strict=True))
    means = torch.stack([x[y == c].mean(0) for c in range(len(data.candidates))])
    expected = F.normalize(data.features) @ F.normalize(means).T
    torch.testing.assert_close(Prototypes("cpu").fit(made).scores(data.features), expected)


@pytest.mark.parametrize("entries", [1, 2**24])
@pytest.mark.parametrize("classifier", [Prototypes("cpu"), StreamedSoftmax(epochs=1, device="cpu")])
def test_the_best_of_all_scores(data, classifier, entries, monkeypatch):
    monkeypatch.setattr(scale, "ENTRIES", entries)
    fitted = classifier.fit(stream(data, data.candidates))
    scores, classes = fitted.top(data.features, 3)
    expected = fitted.scores(data.features).topk(3)
    assert torch.equal(scores, expected.values)
    assert torch.equal(classes, expected.indices)


# --- the recogniser ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NearestNeighbours(5, "cpu"), Prototypes("cpu")])
def test_it_stands_in_the_protocol_and_recognises(data, kind):
    softmax = StreamedSoftmax(epochs=60, lr=0.02, device="cpu")
    made = streamed(data, Random, samples=8, block=60, zsl=kind, gzsl=softmax)
    found = evaluate(made.fit(data), data)
    assert found.T1 > 75
    assert found.H > 50


def test_the_best_of_the_recogniser_are_rows_of_the_semantics(data):
    made, semantics = streamed(data), data.semantics[data.unseen]
    scores, classes = made.top(data.features, semantics, 2)
    assert torch.equal(classes[:, 0], made.scores(data.features, semantics).argmax(1))
    assert (scores[:, 0] >= scores[:, 1]).all()


def test_a_classifier_is_fitted_once_for_many_queries(data):
    made, semantics = streamed(data, zsl=Prototypes("cpu")), data.semantics[data.unseen]
    classifier = made.classifier(semantics)
    asked = len(made.model.asked)
    assert torch.equal(classifier.scores(data.features), made.scores(data.features, semantics))
    assert asked == len(made.model.asked) - asked == 1
    assert not hasattr(made.zsl, "means_"), "the setting's own classifier stays as it was"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", [NearestNeighbours, Prototypes, StreamedSoftmax])
def test_a_gpu_gives_what_the_cpu_gives(data, kind):
    cpu, gpu = (kind(device=d).fit(stream(data, model=Random)).scores(data.features) for d in ("cpu", "cuda"))
    torch.testing.assert_close(cpu, gpu, rtol=1e-3, atol=1e-4)


# --- FAISS ---------------------------------------------------------------------------------------------


@LINUX_ONLY
def test_faiss_and_torch_work_in_one_process():
    """The wheels of both bring an OpenMP; whether that goes well is seen in a process of its own."""
    pytest.importorskip("faiss")
    code = (
        "import torch, numpy as np\nfrom zsl_lib.scale import _faiss\ntorch.set_num_threads(2)\n"
        "x = torch.randn(600, 600); (x @ x).sum()\nfaiss = _faiss()\nindex = faiss.IndexFlatIP(600)\n"
        "index.add(x.numpy()); rows = index.search(x.numpy(), 1)[1]\nx = torch.nn.Linear(600, 600)(x)\n"
        "x.sum().backward()\nprint(faiss.omp_get_max_threads(), (rows[:, 0] == np.arange(600)).all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "True"], done.stderr


@LINUX_ONLY
def test_an_exact_index_has_the_exact_neighbours(data):
    pytest.importorskip("faiss")
    made = stream(data, data.candidates, block=60)
    exact = NearestNeighbours(5, "cpu").fit(made)
    index = ApproximateNeighbours(5, factory="Flat").fit(made)
    for found, expected in zip(index.neighbours(data.features), exact.neighbours(data.features), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(index.scores(data.features), exact.scores(data.features))


@LINUX_ONLY
def test_more_probes_find_more_neighbours(data):
    pytest.importorskip("faiss")
    made = stream(data, data.candidates, model=Random, samples=200, block=600)
    _, exact = NearestNeighbours(10, "cpu").fit(made).neighbours(data.features)
    index = ApproximateNeighbours(10).fit(made)
    recall = []
    for probes in (1, 4, 1000):
        index.probes = probes
        _, rows = index.neighbours(data.features)
        recall.append(float((rows[:, :, None] == exact[:, None, :]).any(2).float().mean()))
    assert recall[0] < recall[1] < recall[2]
    assert recall[2] > 0.9, "all cells are searched; what is lost is lost by eight bits"


@LINUX_ONLY
def test_a_neighbour_that_is_not_found_has_no_vote(data):
    pytest.importorskip("faiss")
    made = stream(data, samples=4)
    index = ApproximateNeighbours(20, factory="IVF6,Flat", probes=1).fit(made)
    _, rows = index.neighbours(data.features)
    assert (rows == NONE).any()
    expected = (rows != NONE).float().mean(1)
    torch.testing.assert_close(index.scores(data.features).sum(1), expected)
    torch.testing.assert_close(index.top(data.features, 20)[0].sum(1), expected)


def test_without_faiss_the_error_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"faiss: .*; pip install 'zsl-book\[scale\]'"):
        ApproximateNeighbours(5).fit(stream(data))


# --- bad input -----------------------------------------------------------------------------------------


def test_scores_before_fit_are_a_data_error(data):
    with pytest.raises(DataError, match=r"StreamedRecogniser\.stream: found no data, expected fit\(\)"):
        StreamedRecogniser(Fixed(data)).scores(data.features, data.semantics)


def test_a_data_set_without_features(data):
    bare = replace(data, features=None, images=torch.zeros(len(data), 1, 2, 2))
    with pytest.raises(DataError, match="made-up: features: found none, expected features to recognise by"):
        StreamedRecogniser(Fixed(data)).remember(bare)


@pytest.mark.parametrize("kind", [NearestNeighbours, ApproximateNeighbours])
def test_more_neighbours_than_features(data, kind):
    message = rf"{kind.__name__}\.fit: found 24 features, expected k = 25 or more"
    with pytest.raises(DataError, match=message):
        kind(25).fit(stream(data, samples=4))


@pytest.mark.parametrize(
    ("classifier", "n", "expected"),
    [
        (NearestNeighbours(5, "cpu"), 6, "1 to 5, the number of neighbours"),
        (Prototypes("cpu"), 7, "1 to 6, the number of classes"),
        (Prototypes("cpu"), 0, "1 to 6, the number of classes"),
    ],
)
def test_more_of_the_best_than_there_are(data, classifier: StreamClassifier, n, expected):
    with pytest.raises(DataError, match=rf"\.top: n: found {n}, expected {expected}"):
        classifier.fit(stream(data)).top(data.features, n)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: NearestNeighbours(0), "NearestNeighbours.k: found 0"),
        (lambda: ApproximateNeighbours(k=0), "ApproximateNeighbours.k: found 0"),
        (lambda: ApproximateNeighbours(probes=0), "ApproximateNeighbours.probes: found 0"),
        (lambda: StreamedRecogniser(None, samples=0), "StreamedRecogniser.samples: found 0"),
        (lambda: StreamedRecogniser(None, block=0), "StreamedRecogniser.block: found 0"),
    ],
)
def test_numbers_out_of_range(make, where):
    with pytest.raises(DataError, match=f"{where}, expected a whole number of 1 or more"):
        make()
