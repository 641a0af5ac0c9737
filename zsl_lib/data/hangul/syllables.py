"""Hangul syllables, their 68 attributes, and the choice of classes.

A modern syllable is an initial consonant, a medial vowel and a final consonant or none. Unicode lists
all 19 x 21 x 28 of them in that order from U+AC00 (The Unicode Standard, section 3.12, "Conjoining Jamo
Behavior"), so the three letters of a syllable follow from its code point by division.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

INITIALS = tuple("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ")
MEDIALS = tuple("ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ")
FINALS = ("none", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
ATTRIBUTE_NAMES = (
    *(f"initial {j}" for j in INITIALS),
    *(f"medial {j}" for j in MEDIALS),
    *(f"final {j}" for j in FINALS),
)
FIRST = 0xAC00


def letters(syllable: str) -> tuple[int, int, int]:
    """Positions (initial 0..18, medial 0..20, final 0..27) of one syllable."""
    initial, rest = divmod(ord(syllable) - FIRST, len(MEDIALS) * len(FINALS))
    return initial, *divmod(rest, len(FINALS))


def attributes(syllables: Sequence[str]) -> np.ndarray:
    """One-hot letters, float32 ``[C, 68]``: 19 initials, 21 medials, 28 finals; three ones a row."""
    offsets = np.array([0, len(INITIALS), len(INITIALS) + len(MEDIALS)])
    columns = np.array([letters(s) for s in syllables]) + offsets
    out = np.zeros((len(syllables), len(ATTRIBUTE_NAMES)), np.float32)
    np.put_along_axis(out, columns, 1.0, axis=1)
    return out


def common_syllables() -> list[str]:
    """The 2,350 syllables of KS X 1001: those that every typeface draws with care."""
    every = (chr(FIRST + k) for k in range(len(INITIALS) * len(MEDIALS) * len(FINALS)))
    return [s for s in every if len(s.encode("euc_kr")) == 2]  # the codec spells the others in 8 bytes


def choose_classes(n_train: int, n_val: int, n_unseen: int, *, seed: int) -> dict[str, list[str]]:
    """Draw disjoint classes from KS X 1001; the ``train`` classes use every one of the 68 letters.

    Returns sorted syllables under ``"train"``, ``"val"`` (both seen) and ``"unseen"``. The train classes
    are drawn so that letters occur about equally often; the others are drawn uniformly.
    """
    rng = np.random.default_rng(seed)
    pool = list(rng.permutation(common_syllables()))
    onehot = attributes(pool)
    chosen: list[int] = []
    counts = np.zeros(onehot.shape[1])
    for _ in range(n_train):
        gain = onehot @ (4.0**-counts)  # a letter not yet used counts most
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        counts += onehot[chosen[-1]]
    if counts.min() == 0:
        raise ValueError(f"{n_train} train classes leave {int((counts == 0).sum())} letters unused")
    rest = [str(s) for k, s in enumerate(pool) if k not in set(chosen)]
    return {
        "train": sorted(str(pool[k]) for k in chosen),
        "val": sorted(rest[:n_val]),
        "unseen": sorted(rest[n_val : n_val + n_unseen]),
    }
