"""Seeds stacked into one network get the runs that each gets alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import rng, small_dataset

from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.ensemble import fit_seeds

CONFIG = ABPConfig(latent_dim=3, hidden=16, langevin_steps=3, step_size=0.1, batch_size=8, epochs=4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_stacked_seeds_are_the_runs_alone(masked, decay):
    data = small_dataset(mask=torch.rand(72, 6, generator=rng(1)) < 0.7 if masked else None)
    config = replace(CONFIG, weight_decay=decay)
    together = fit_seeds(data, config, [0, 3, 4], device="cpu", progress=False)
    for seed, found in zip([0, 3, 4], together, strict=True):
        alone = ABP(config, seed=seed, device="cpu").fit(data, progress=False)
        torch.testing.assert_close(found.z, alone.z, rtol=1e-3, atol=1e-4)
        for p, q in zip(found.net.parameters(), alone.net.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
        for one, other in zip(found.history, alone.history, strict=True):
            for key in one.keys() - {"seconds"}:
                assert one[key] == pytest.approx(other[key], rel=1e-4)
    assert not torch.allclose(together[0].z, together[1].z, atol=0.1)


def test_stacked_models_sample_as_alone():
    data = small_dataset()
    (found,) = fit_seeds(data, CONFIG, [2], device="cpu", progress=False)
    alone = ABP(CONFIG, seed=2, device="cpu").fit(data, progress=False)
    semantics = data.semantics[data.unseen]
    torch.testing.assert_close(
        found.sample(semantics, 4, rng()), alone.sample(semantics, 4, rng()), rtol=1e-3, atol=1e-4
    )


def test_no_seeds_is_a_data_error():
    with pytest.raises(DataError, match="seeds: found none"):
        fit_seeds(small_dataset(), CONFIG, [])
