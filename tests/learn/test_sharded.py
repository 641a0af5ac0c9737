"""ABP in several processes gives the run of one: real processes, joined by gloo on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import processes, rng, small_dataset

from zsl_lib import parallel
from zsl_lib.data import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.learn import ABP, ABPConfig
from zsl_lib.learn.sharded import ShardedABP, from_first
from zsl_lib.record import read_records

ROOT = Path(__file__).resolve().parents[2]
SMALL = ABPConfig(latent_dim=3, hidden=16, langevin_steps=3, step_size=0.1, batch_size=8, epochs=4)


def odd_dataset(mask: torch.Tensor | None = None) -> ZSLDataset:
    """35 training examples: no multiple of two or three processes, and a last batch of three."""
    data = small_dataset(per_class=10, mask=mask)
    assert len(data.trainval) == 35
    return data


def one(data: ZSLDataset, config: ABPConfig = SMALL, **options: Any) -> ABP:
    return ABP(config, seed=3, device="cpu").fit(data, progress=False, **options)


def together(ranks: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(*arguments)`` returns in each of several processes, joined by gloo."""
    folder.mkdir(exist_ok=True)
    fork = processes()
    todo = [fork.Process(target=_process, args=(r, ranks, folder, work, arguments)) for r in range(ranks)]
    for process in todo:
        process.start()
    for process in todo:
        process.join(120)
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(ranks)]


def _process(
    rank: int, ranks: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    torch.save(work(*arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def fit(data: ZSLDataset, config: ABPConfig = SMALL, **options: Any) -> dict[str, Any]:
    model = ShardedABP(config, seed=3, device="cpu").fit(data, progress=False, **options)
    return {
        "net": model.net.state_dict(),
        "z": model.z,
        "latents": model.latents(),
        "history": model.history,
        "rows": len(model._training(data).x),
    }


def message(data: list[ZSLDataset], config: ABPConfig, seeds: list[int]) -> str:
    """What this process says when it must not learn."""
    rank = dist.get_rank()
    with pytest.raises(DataError) as caught:
        ShardedABP(config, seed=seeds[rank], device="cpu").fit(data[rank], progress=False)
    return str(caught.value)


def same(found: list[dict[str, Any]], expected: ABP) -> None:
    """Weights, latents and history to 1e-5; among the processes, bit for bit."""
    n = len(expected.z)
    for rank, process in enumerate(found):
        for name, weight in expected.net.state_dict().items():
            torch.testing.assert_close(process["net"][name], weight, rtol=1e-5, atol=1e-5)
            assert torch.equal(process["net"][name], found[0]["net"][name])
        torch.testing.assert_close(process["latents"], expected.z, rtol=1e-5, atol=1e-5)
        assert torch.equal(process["z"], process["latents"][rank :: len(found)])
        assert len(process["z"]) == process["rows"] == len(range(rank, n, len(found)))
        assert len(process["history"]) == len(expected.history)
        for entry, wanted in zip(process["history"], expected.history, strict=True):
            for key in wanted.keys() - {"seconds"}:
                assert entry[key] == pytest.approx(wanted[key], rel=1e-5)


CASES = {
    "paper": {},
    "weight decay": {"weight_decay": 1e-2},
    "no inference": {"langevin_steps": 0},
    "no latents": {"latent_dim": 0, "langevin_steps": 0},
    "one batch": {"batch_size": 64},
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_run_of_one(case, tmp_path):
    data, config = odd_dataset(), replace(SMALL, **CASES[case])
    same(together(2, tmp_path / "two", fit, data, config), one(data, config))


def test_with_a_mask(tmp_path):
    data = odd_dataset(torch.rand(80, 6, generator=rng(1)) < 0.7)
    expected = one(data)
    same(together(2, tmp_path / "two", fit, data), expected)
    assert not torch.allclose(expected.z, one(replace(data, mask=None)).z, atol=1e-4), "the mask matters"


def test_three_processes_of_which_some_have_no_row_of_a_batch(tmp_path):
    data, config = odd_dataset(), replace(SMALL, batch_size=3)
    order = torch.randperm(35, generator=rng(3))
    assert any(len(set((batch % 3).tolist())) < 3 for batch in order.split(3))
    same(together(3, tmp_path / "three", fit, data, config), one(data, config))


def test_one_process_alone_is_plain_abp_bit_for_bit(tmp_path):
    data = odd_dataset()
    (found,) = together(1, tmp_path / "one", fit, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = one(data)
    torch.set_num_threads(threads)
    assert torch.equal(found["z"], expected.z)
    assert all(torch.equal(found["net"][k], w) for k, w in expected.net.state_dict().items())


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1), (2, 2), (2, 3)])
def test_a_checkpoint_goes_on_in_another_number_of_processes(first, then, tmp_path):
    data, path = odd_dataset(), tmp_path / "abp.pt"
    for ranks, epochs in ((first, 2), (then, 4)):
        if ranks == 1:
            last = one(data, epochs=epochs, checkpoint=path)
            found = [{"net": last.net.state_dict(), "z": last.z, "latents": last.z, "rows": 35}]
            found[0]["history"] = last.history
        else:
            keep = {"epochs": epochs, "checkpoint": path}
            found = together(ranks, tmp_path / f"{epochs}", fit_to, data, keep)
    same(found, one(data))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["abp.pt"]
    plain = ABP(SMALL, seed=3, device="cpu").fit(data, checkpoint=path, progress=False)
    assert torch.equal(plain.z, found[0]["latents"])


def fit_to(data: ZSLDataset, options: dict[str, Any]) -> dict[str, Any]:
    return fit(data, SMALL, **options)


def test_more_processes_than_examples_in_a_batch(tmp_path):
    said = together(3, tmp_path / "m", message, [odd_dataset()] * 3, replace(SMALL, batch_size=2), [0] * 3)
    assert set(said) == {"ShardedABP.fit: processes: found 3, expected at most 2, the examples of a batch"}


def test_a_process_of_another_seed_or_other_data_is_refused_by_all(tmp_path):
    data = odd_dataset()
    said = together(2, tmp_path / "seed", message, [data, data], SMALL, [0, 1])
    assert said[0] == "2 processes: found 1 with other data or settings, expected one run"
    assert said[1] == "process 1 of 2: found {'seed': 1}, expected {'seed': 0}"
    other = replace(data, features=data.features + 0.01)
    assert "'data'" in together(2, tmp_path / "data", message, [data, other], SMALL, [0, 0])[1]


def test_a_damaged_checkpoint_is_refused_by_all(tmp_path):
    path = tmp_path / "abp.pt"
    path.write_bytes(b"")
    said = together(2, tmp_path / "m", refused, odd_dataset(), path)
    assert said == [f"{path}: found no readable checkpoint, expected one of ShardedABP.fit"] * 2


def refused(data: ZSLDataset, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        ShardedABP(SMALL, seed=3, device="cpu").fit(data, checkpoint=path, progress=False)
    return str(caught.value)


def test_bytes_of_the_first(tmp_path):
    assert together(3, tmp_path / "b", passed_on) == [["first", "", "None"]] * 3


def passed_on() -> list[str]:
    first = dist.get_rank() == 0
    given: list[bytes | None] = [b"first", b"", None] if first else [None, b"mine", b"mine"]
    found = [from_first(content, torch.device("cpu")) for content in given]
    return ["None" if content is None else content.decode() for content in found]


def test_without_a_process_group_it_says_how_to_start():
    with pytest.raises(DataError, match=r"found no process group, .* \(start it by torchrun"):
        ShardedABP(SMALL)


# --- the command ---------------------------------------------------------------------------------------

QUICK = ["toy", "--epochs", "2", "--hidden", "32", "--samples", "5", "--device", "cpu"]
PLANTED = """
import os, sys
from zsl_lib import parallel
from zsl_lib.learn.sharded import ShardedABP

def fail(*_):
    raise ArithmeticError("planted in one process")

if os.environ["RANK"] == "1":
    ShardedABP._noise = fail
sys.exit(parallel.main(sys.argv[1:]))
"""


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_command_learns_evaluates_and_writes_a_record(tmp_path):
    done = torchrun(tmp_path, "-m", "zsl_lib.parallel", *QUICK, "--checkpoint", "abp.pt")
    assert done.returncode == 0, done.stderr
    (run,) = read_records(tmp_path / "_build/results").to_dict("records")
    assert run["parameters"]["processes"] == 2
    assert run["command"].startswith("torchrun --nproc-per-node 2 -m zsl_lib.parallel toy --epochs 2 ")
    assert run["file"] == "parallel/toy-abp-0.json"
    assert f"toy-abp-0.json: T1 {run['T1']:.1f}, H {run['H']:.1f}" in done.stdout
    assert done.stdout.count("T1") == 1
    assert len(torch.load(tmp_path / "abp.pt", weights_only=True)["history"]) == 2


def test_a_process_that_fails_ends_the_others_with_its_message(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED)
    done = torchrun(tmp_path, "planted.py", *QUICK)
    assert done.returncode == 1
    assert "process 1: planted in one process\n" in done.stderr
    assert not (tmp_path / "_build").exists()


def test_without_torchrun_the_command_says_how_to_start(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    assert parallel.main(["toy"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "zsl_lib.parallel: found no RANK in the environment, expected one (start it by torchrun"
    )


def test_every_setting_is_an_option_with_its_default():
    options = vars(parallel._parser().parse_args(["toy"]))
    config = ABPConfig()
    for name in json.loads(json.dumps(config.__dict__)).keys() - {"betas"}:
        assert options[name] == getattr(config, name)
