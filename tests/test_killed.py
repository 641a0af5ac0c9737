"""A run that is killed at any moment leaves whole files, and goes on to the end that it would have had.

Fetching has a test of its own kind in ``tests/data/test_fetch.py``.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import torch
from helpers import processes, small_dataset

from zsl_lib import record
from zsl_lib.files import STALE
from zsl_lib.learn import ABP, ABPConfig

KILLS = 100
LONGEST = 0.3  # seconds from the start of the work to the kill, at most
CONFIG = ABPConfig(latent_dim=3, hidden=64, langevin_steps=1, step_size=0.1, batch_size=64, epochs=40)
EMPTY_RECORD = {
    "experiment": "killed",
    "dataset": "made_up",
    "method": "abp",
    "seed": 0,
    "parameters": asdict(CONFIG),
    "selection": "none",
    "seconds": 0.0,
    "peak_memory_mb": 0.0,
    "device": "cpu",
    "digests": {},
    "git_commit": "unknown",
    "versions": {},
    "command": "pytest",
}


def learn(folder: Path, begun: Connection | None) -> None:
    """Run after run: each saves its epochs, keeps a record of them, and adds the digest of its end to a file.

    Without ``begun``, which is told when the work begins, the first run is the last.
    """
    torch.set_num_threads(1)
    data = small_dataset()
    if begun is not None:
        begun.send("begun")
    while True:
        model = ABP(CONFIG, seed=0, device="cpu")
        model.fit(data, checkpoint=folder / "abp.pt", after_epoch=lambda m: keep(m, folder), progress=False)
        with (folder / "ends").open("a", encoding="utf-8", buffering=1) as file:
            file.write(f"{digest(model)}\n")
        if begun is None:
            return
        (folder / "abp.pt").unlink()


def keep(model: ABP, folder: Path) -> None:
    curves = {key: [entry[key] for entry in model.history] for key in ("epoch", "loss")}
    values = EMPTY_RECORD | {"metrics": {"loss": model.history[-1]["loss"]}, "curves": curves}
    record.Record(**values).write(folder)


def digest(model: ABP) -> str:
    """Of weights, latents and history but for the clock."""
    total = hashlib.sha256(pd.DataFrame(model.history).drop(columns="seconds").to_json().encode())
    for tensor in (*model.net.parameters(), model.z):
        total.update(tensor.detach().numpy().tobytes())
    return total.hexdigest()


def expect_whole(folder: Path) -> None:
    """The checkpoint and the record are whole or absent."""
    if (folder / "abp.pt").exists():
        state = torch.load(folder / "abp.pt", weights_only=True)
        assert 1 <= len(state["history"]) <= CONFIG.epochs
        assert set(state) == {"run", "net", "adam", "rng", "history", "z"}
    assert len(record.read_records(folder)) <= 1


def strays(folder: Path) -> list[Path]:
    """What writing was killed in."""
    return sorted([*folder.glob(".abp.pt.*"), *folder.glob("killed/.made_up-abp-0.json.*")])


def run(folder: Path, seconds: float | None) -> None:
    """:func:`learn` in a process of its own, killed after some seconds unless None."""
    ours, theirs = processes().Pipe()
    process = processes().Process(target=learn, args=(folder, None if seconds is None else theirs))
    process.start()
    if seconds is None:
        process.join(120)
        assert process.exitcode == 0
        return
    assert ours.poll(120)
    time.sleep(seconds)
    process.kill()
    process.join()


def test_killed_anywhere_every_file_is_whole_and_the_run_goes_on(tmp_path, capfd, record_property):
    """100 kills at random moments of training, of saving and of writing records; each run finds what the last
    one left."""
    whole, killed, rng, kills = tmp_path / "whole", tmp_path / "killed", random.Random(0), 0
    whole.mkdir()
    killed.mkdir()
    run(whole, None)
    expected = (whole / "ends").read_text()
    while kills < KILLS:
        run(killed, rng.uniform(0, LONGEST))
        kills += 1
        expect_whole(killed)
    assert kills == 100
    run(killed, None)
    ends = (killed / "ends").read_text().splitlines(keepends=True)
    assert set(ends) == {expected}
    assert record.read_records(killed)["loss"].item() == record.read_records(whole)["loss"].item()
    caught = strays(killed)
    for stray in caught:
        os.utime(stray, (time.time() - STALE - 60,) * 2)
    (killed / "abp.pt").unlink()
    run(killed, None)
    assert sorted(p.name for p in killed.rglob("*") if p.is_file()) == [
        "abp.pt",
        "ends",
        "made_up-abp-0.json",
    ]
    record_property("kills", kills)
    with capfd.disabled():
        print(f" [{kills} kills, {len(caught)} of them while writing; {len(ends)} runs] ", end="")
