"""The loops that the speed page compares do the same work, and its floor is counted right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import small_dataset

from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.arms import RELEASED

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CONFIG = ABPConfig(latent_dim=3, hidden=16, langevin_steps=3, step_size=0.1, batch_size=8, epochs=3)


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_plain_loop_is_the_librarys_run():
    from loops import Plain

    plain, library = (
        kind(CONFIG, seed=0, device="cpu").fit(small_dataset(), progress=False) for kind in (Plain, ABP)
    )
    torch.testing.assert_close(plain.z, library.z, rtol=1e-3, atol=1e-4)
    for p, q in zip(plain.net.parameters(), library.net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    for key in ("loss", "energy_start", "moved"):
        assert plain.history[-1][key] == pytest.approx(library.history[-1][key], rel=1e-3)


def test_the_released_order_takes_as_many_inference_steps_as_the_paper():
    assert 2 * RELEASED["langevin_steps"] == ABPConfig.langevin_steps


def test_the_floor_by_hand():
    from abp_speed import floor_ms

    size = {"semantic_dim": 312, "hidden": 4096, "feature_dim": 2048}
    rates = {"gflops_float32": 100.0, "gflops_bfloat16": 1000.0, "gb_per_s": 10.0}
    product = 2 * 64 * 4096 * 2048  # one pass of a batch through the large layer
    weights = 4096 * (2048 + 322)
    full, low = floor_ms(rates, size, low=False), floor_ms(rates, size, low=True)
    assert full["floor_inference"] == pytest.approx(20 * product / 100e9 * 1e3)
    assert low["floor_inference"] == pytest.approx(full["floor_inference"] / 10)
    small = 2 * 64 * 4096 * 322
    assert full["floor_learning"] == pytest.approx((3 * product + 2 * small) / 100e9 * 1e3)
    assert full["floor_memory"] == pytest.approx(28 * weights / 10e9 * 1e3)
    assert low["floor_memory"] == pytest.approx(34 * weights / 10e9 * 1e3)
    for found in (full, low):
        assert found["floor"] == pytest.approx(sum(v for k, v in found.items() if k != "floor"))


def test_the_command_writes_records_of_every_loop(tmp_path, monkeypatch):
    import abp_speed

    tiny = {"cub_size": {"semantic_dim": 5, "hidden": 32, "feature_dim": 16}}
    monkeypatch.setattr(abp_speed, "SIZES", tiny)
    monkeypatch.setattr(
        abp_speed, "machine", lambda device: {"gflops_float32": 1.0, "gflops_bfloat16": 1.0, "gb_per_s": 1.0}
    )
    arguments = ["--parts", "iteration", "--repeats", "2", "--device", "cpu", "--results-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["abp_speed.py", *arguments])
    monkeypatch.setattr(abp_speed, "peak_memory", lambda *_: 1.0)
    abp_speed.main()
    found = {p.stem: json.loads(p.read_text())["metrics"] for p in (tmp_path / "speed").iterdir()}
    assert set(found) == {f"cub_size-{loop}-0" for loop in abp_speed.LOOPS}
    assert found["cub_size-library-0"]["times_library"] == pytest.approx(1)
    assert found["cub_size-library-0"]["ms_low"] <= found["cub_size-library-0"]["ms"]
