"""The targets of ``make fuzz`` on seeds and on damaged ones, without atheris; what fuzzing has found."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from fuzz_readers import TARGETS, try_once

SEEDS = {name: seeds() for name, (_, seeds) in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_seed_is_read_and_damaged_ones_are_refused_by_a_data_error_or_read(name, tmp_path):
    seeds, rng = SEEDS[name], random.Random(0)
    assert try_once(name, seeds[0], tmp_path)
    for seed in [*seeds, b"", b"\0" * 600]:
        try_once(name, seed, tmp_path)
        for _ in range(10):
            damaged = bytearray(seed[: rng.randint(0, len(seed))] if rng.random() < 0.3 else seed)
            for _ in range(min(3, len(damaged))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try_once(name, bytes(damaged), tmp_path)
