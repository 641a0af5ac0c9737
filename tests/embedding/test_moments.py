"""Sums over blocks against the same in one piece, and the methods that learn from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rng, small_dataset
from torch import Tensor

from zsl_lib.embedding import available
from zsl_lib.embedding.moments import PIECE, MomentModel, Moments, blocks, collect
from zsl_lib.errors import DataError

METHODS = [name for name, method in available().items() if issubclass(method, MomentModel)]
EVERY = pytest.mark.parametrize("name", METHODS)
SEEN, DIM = 5, 6


@pytest.fixture
def parts() -> tuple[Tensor, Tensor]:
    g = rng()
    return torch.randn(53, DIM, generator=g), torch.cat(
        [torch.arange(SEEN), torch.randint(SEEN, (48,), generator=g)]
    )


def one_piece(x: Tensor, y: Tensor) -> Moments:
    """By the definition, class by class."""
    own = [x[y == c].double() for c in range(SEEN)]
    x = x.double()
    return Moments(
        torch.tensor([float(len(rows)) for rows in own]).double(),
        torch.stack([rows.sum(0) for rows in own]),
        torch.stack([rows.square().sum(0) for rows in own]),
        torch.einsum("nd,ne->de", x, x),
    )


def assert_same(found: Moments, expected: Moments) -> None:
    for name in ("counts", "sums", "squares", "gram"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 53, 4096])
def test_blocks_of_any_length_have_the_sums_of_one_piece(parts, rows):
    assert_same(collect(blocks(*parts, rows=rows), SEEN), one_piece(*parts))


def test_a_block_may_be_empty_or_not_contiguous(parts):
    x, y = parts
    turned = x.T.contiguous().T
    assert_same(
        collect([(x[:0], y[:0]), (turned[:20], y[:20]), (turned[20:], y[20:])], SEEN), one_piece(x, y)
    )


def test_a_file_on_disk_is_read_block_by_block(parts, tmp_path):
    x, y = parts
    file = np.memmap(tmp_path / "x.bin", dtype=np.float32, mode="w+", shape=tuple(x.shape))
    file[:] = x.numpy()
    file.flush()
    read = np.memmap(tmp_path / "x.bin", dtype=np.float32, mode="r", shape=tuple(x.shape))
    assert_same(collect(blocks(read, y.numpy(), rows=10), SEEN), one_piece(x, y))


def test_sums_are_in_double_precision():
    """In float32, 2²⁴ + 1 is 2²⁴."""
    x, y = torch.tensor([[2.0**24], [1.0], [1.0]]), torch.zeros(3, dtype=torch.int64)
    assert float(collect(blocks(x, y, rows=1), 1).sums) == 2**24 + 2


def test_pieces_of_a_block_are_all_counted():
    g, n = rng(2), 2 * PIECE + 7
    x, y = torch.randn(n, DIM, generator=g), torch.randint(SEEN, (n,), generator=g)
    assert_same(collect([(x, y)], SEEN), one_piece(x, y))


def test_double_precision_and_whole_numbers_are_taken_too(parts):
    x, y = parts
    assert_same(collect([(x.double(), y.int())], SEEN), one_piece(x, y))
    whole = (x * 10).round()
    assert_same(collect([(whole.to(torch.int16), y)], SEEN), one_piece(whole, y))


def test_a_gram_nobody_asked_for_is_not_made(parts):
    assert collect(blocks(*parts), SEEN, gram=False).gram is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: [], "blocks: found none, expected at least one"),
        (lambda x, y: [(x, y[:-1])], r"block 0: found \[53, 6\] and \[52\], expected features \[n, D\] and"),
        (lambda x, y: [(x[:, 0], y)], r"block 0: found \[53\] and \[53\], expected features \[n, D\] and"),
        (
            lambda x, y: [(x, y), (x[:, 1:], y)],
            r"block 1: found \[53, 5\] .* features \[n, 6\]",
        ),
        (
            lambda x, y: [(x, y), (x, y + 1)],
            "block 1: found classes 1 to 5, expected 0 to 4, rows of",
        ),
        (lambda x, y: [(x, y - 1)], "block 0: found classes -1 to 3, expected 0 to 4"),
        (lambda x, y: [(x / 0, y)], "block 0: found features that are not finite"),
        (lambda x, y: [(x[y != 3], y[y != 3])], "blocks: found no image of class 3, expected at least one"),
    ],
)
def test_blocks_that_do_not_fit_are_errors(parts, change, message):
    with pytest.raises(DataError, match=message):
        collect(change(*parts), SEEN)


@EVERY
def test_a_method_learns_the_same_from_blocks_as_from_the_data_set(name):
    data = small_dataset()
    x, y = data.x(data.trainval), torch.searchsorted(data.seen, data.labels[data.trainval])
    order = torch.randperm(len(x), generator=rng(4))
    s = data.semantics[data.seen]
    expected = available()[name]().fit(data).scores(data.features, data.semantics)
    streamed = available()[name]().fit_blocks(blocks(x[order], y[order], rows=7), s)
    torch.testing.assert_close(streamed.scores(data.features, data.semantics), expected)
    summed = available()[name]().fit_moments(collect(blocks(x, y), len(s)), s)
    torch.testing.assert_close(summed.scores(data.features, data.semantics), expected)


@EVERY
def test_semantics_of_other_classes_are_an_error(name, parts):
    method = available()[name]
    with pytest.raises(DataError, match=rf"fit_moments: semantics: found \[4, 3\], expected \[{SEEN}, K\]"):
        method().fit_moments(collect(blocks(*parts), SEEN), torch.rand(4, 3))
    with pytest.raises(DataError, match="found classes 0 to 4, expected 0 to 3"):
        method().fit_blocks(blocks(*parts), torch.rand(4, 3))


@pytest.mark.parametrize("name", [name for name in METHODS if available()[name].GRAM])
def test_a_missing_gram_is_an_error_where_it_is_needed(name, parts):
    with pytest.raises(DataError, match=r"fit_moments: gram: found None, .*collect\(..., gram=True\)"):
        available()[name]().fit_moments(collect(blocks(*parts), SEEN, gram=False), torch.rand(SEEN, 3))


@EVERY
def test_there_is_nothing_to_score_with_before_and_other_widths_are_errors_after(name, parts):
    model = available()[name]()
    with pytest.raises(DataError, match="found no data"):
        model.scores(parts[0], torch.rand(2, 3))
    model.fit_blocks(blocks(*parts), torch.rand(SEEN, 3, generator=rng()))
    with pytest.raises(DataError, match=r"x: found \[n, 2\], expected \[n, 6\]"):
        model.scores(parts[0][:, :2], torch.rand(2, 3))


@EVERY
def test_nothing_grows_with_the_square_of_the_number_of_images(name):
    """Of 400,000 images, a matrix with a row and a column each would take over a terabyte."""
    x, y = torch.rand(400_000, 3, generator=rng()), torch.arange(400_000) % SEEN
    model = available()[name]().fit_blocks(blocks(x, y), torch.rand(SEEN, 3, generator=rng(1)))
    assert model.scores(x, torch.rand(2, 3)).isfinite().all()
