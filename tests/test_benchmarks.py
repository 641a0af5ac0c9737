"""The loops that the speed page compares do the same work, and its floor is counted right."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
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


@pytest.mark.parametrize(("threads", "end"), [(None, ""), (3, " --threads 3")])
def test_a_record_names_the_command_that_makes_it(tmp_path, threads, end):
    from clocks import write

    options = argparse.Namespace(threads=threads, repeats=4, results_dir=tmp_path)
    write(options, "speed", "toy", "abp", {"ms": 1.0}, {"batch": 5}, script="any.py", seed=2)
    values = json.loads((tmp_path / "speed" / "toy-abp-2.json").read_text())
    assert values["command"] == f"python benchmarks/any.py --repeats 4{end}"
    assert values["parameters"] == {"batch": 5, "threads": torch.get_num_threads()}


@pytest.fixture
def tiny(monkeypatch):
    """Sizes in a blink: one whole, and one of which two blocks of sixteen are measured."""
    import compatibility_speed as speed

    sizes = {
        "cub_size": speed.Size(60, 60, 9, 5, 6, 8, tested=7),
        "imagenet_size": speed.Size(1000, 32, 9, 5, 6, 6, tested=7),
    }
    monkeypatch.setattr(speed, "SIZES", sizes)
    monkeypatch.setattr(speed, "BLOCK", 16)
    return speed


@pytest.mark.parametrize("size", ["cub_size", "imagenet_size"])
@pytest.mark.parametrize("method", ["eszsl", "sae", "gfzsl"])
def test_the_form_that_one_writes_first_scores_as_the_library_does(tiny, method, size):
    problem = tiny.Problem.of(tiny.SIZES[size])
    blocks, one_shot = (torch.as_tensor(tiny.fit(method, form, problem)()) for form in tiny.FORMS)
    assert blocks.shape == (7, tiny.SIZES[size].candidates)
    torch.testing.assert_close(blocks, one_shot, rtol=1e-6, atol=1e-8)


def test_the_blocks_of_a_size_have_the_rows_that_it_says(tiny):
    for size in tiny.SIZES.values():
        problem = tiny.Problem.of(size)
        assert sum(len(x) for x, _ in problem.parts()) == size.rows == len(problem.whole()[0])


def test_the_sizes_are_those_of_the_data_sets():
    from compatibility_speed import BLOCK, SIZES

    found = {name: (size.images, size.semantic_dim, size.seen) for name, size in SIZES.items()}
    assert found["cub_size"] == (7057, 312, 150)
    assert found["awa2_size"] == (23527, 85, 40)
    assert found["imagenet_size"] == (1281167, 500, 1000)
    for size in SIZES.values():
        assert size.rows == size.images or size.rows % BLOCK == 0


def test_the_closed_forms_have_records_of_both_forms(tiny, tmp_path, monkeypatch):
    arguments = ["--sizes", "cub_size", "imagenet_size", "--repeats", "2", "--results-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compatibility_speed.py", *arguments])
    monkeypatch.setattr(tiny, "_process_peak", lambda method, form, size: {"nothing": 1.0}.get(method, 3.0))
    tiny.main()
    found = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "speed_compatibility").iterdir()}
    names = {f"{s}-{m}_{f}-0" for s in tiny.SIZES for m in ("eszsl", "sae", "gfzsl") for f in tiny.FORMS}
    assert set(found) == names
    metrics = found["cub_size-sae_blocks-0"]["metrics"]
    assert metrics["fit_times_blocks"] == metrics["score_times_blocks"] == 1
    assert metrics["peak_mb"] == 2
    assert metrics["fit_ms_low"] <= metrics["fit_ms"] <= metrics["fit_ms_high"]
    assert found["imagenet_size-eszsl_blocks-0"]["parameters"]["rows"] == 32


@pytest.mark.parametrize("method", ["nothing", "sae"])
def test_a_process_says_how_much_memory_it_has_held(tiny, capsys, method):
    tiny.print_own_peak(method, "blocks", "cub_size")
    assert 10 < float(capsys.readouterr().out) < 1e5


@pytest.fixture
def relation_speed(monkeypatch):
    import relation_speed as speed

    monkeypatch.setattr(speed, "SIZES", {"cub_size": speed.Size(5, 7, embedding=6, hidden=4)})
    return speed


def test_both_forms_of_the_relation_network_agree(relation_speed):
    problem = relation_speed.Problem(relation_speed.SIZES["cub_size"])
    split, naive = (problem.scores(form) for form in relation_speed.FORMS)
    assert split.shape == (5, 7)
    torch.testing.assert_close(split, naive, rtol=0, atol=1e-6)
    for a, b in zip(*(problem.step(form) for form in relation_speed.FORMS), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_relation_network_has_records_of_both_forms(relation_speed, tmp_path, monkeypatch, capsys):
    arguments = ["--sizes", "cub_size", "--repeats", "2", "--results-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["relation_speed.py", *arguments])
    monkeypatch.setattr(relation_speed, "_process_peak", lambda form, size: {"nothing": 1.0}.get(form, 4.0))
    relation_speed.main()
    found = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "speed_relation").iterdir()}
    assert set(found) == {f"cub_size-{form}-0" for form in ("split", "concatenations")}
    metrics = found["cub_size-split-0"]["metrics"]
    assert metrics["step_times_split"] == metrics["score_times_split"] == 1
    assert metrics["peak_mb"] == 3
    capsys.readouterr()
    relation_speed.print_own_peak("split", "cub_size")
    assert 10 < float(capsys.readouterr().out) < 1e5


@pytest.fixture
def scale_speed(monkeypatch):
    """The benchmark on small numbers, in this process."""
    import scale as speed

    monkeypatch.setattr(speed, "SIZE", {"semantic_dim": 9, "latent_dim": 3, "feature_dim": 16, "hidden": 8})
    monkeypatch.setattr(speed, "SETTING", {"samples": 4, "k": 3, "queries": 20, "block": 32})
    monkeypatch.setattr(speed, "EXAMPLES", (50,))
    monkeypatch.setattr(speed, "KINDS", 10)
    monkeypatch.setattr(speed, "BLOCK", 16)
    monkeypatch.setattr(speed, "CLASSES", (30, 60))
    monkeypatch.setattr(speed, "HELD", 30)
    monkeypatch.setattr(speed, "in_process", speed.measure)
    return speed


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_classes_have_a_record_of_every_classifier(scale_speed, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    arguments = ["--parts", "classes", "--scratch", str(tmp_path), "--results-dir", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["scale.py", *arguments])
    scale_speed.main()
    found = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "results" / "speed_scale").iterdir()}
    names = {f"classes_{c}-{m}-0" for c in (30, 60) for m in scale_speed.METHODS}
    assert set(found) == names - {"classes_60-held-0"}
    exact, held = (found[f"classes_30-{m}-0"]["metrics"] for m in ("exact", "held"))
    assert exact["T1"] == held["T1"]
    faiss = found["classes_60-faiss-0"]["metrics"]
    assert 0 < faiss["recall_4"] <= faiss["recall_16"] <= faiss["recall_64"] <= 100
    softmax = found["classes_60-softmax-0"]
    assert softmax["metrics"]["fit_ms"] == pytest.approx(25 * softmax["metrics"]["step_ms"], abs=0.01)
    assert softmax["parameters"]["classes"] == 60
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "scratch files are removed"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_examples_on_disk_have_a_record_of_every_pass(scale_speed, tmp_path, monkeypatch):
    arguments = [
        "--parts",
        "examples",
        "--scratch",
        str(tmp_path),
        "--results-dir",
        str(tmp_path / "results"),
    ]
    monkeypatch.setattr(sys, "argv", ["scale.py", *arguments])
    scale_speed.main()
    found = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "results" / "speed_scale").iterdir()}
    assert set(found) == {f"examples_50-{name}-0" for name in scale_speed.PASSES}
    assert all(one["metrics"]["ms"] > 0 for one in found.values())
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "scratch files are removed"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_counts_what_was_held_and_no_mapped_file(scale_speed, tmp_path):
    """In a process of its own, whose address space has not been larger before."""
    code = (
        "import sys; sys.argv = ['scale.py']; import numpy as np, scale\nscale.SIZE['feature_dim'] = 2**16\n"
        "scale.KINDS, folder = 10, scale.Path(sys.path.pop())\nscale.make_examples(folder / 'x', 200)\n"
        "print(scale.measure_examples(folder / 'x')['range_mb'])\nbefore = scale.kept_mb('VmRSS')\n"
        "scale.forget_peak()\nnp.ones(2**23).sum()\nprint(scale.kept_mb('VmHWM') - before)\n"
    )
    words = [
        sys.executable,
        "-c",
        f"import sys; sys.path += [{str(BENCHMARKS)!r}, {str(tmp_path)!r}]\n{code}",
    ]
    own = os.environ | scale_speed.FREED
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=own)
    mapped, held = map(float, done.stdout.split())
    assert mapped < 512, "the file is 50 MB, and a block of 8192 rows would be 2 GB if it did not end there"
    assert 60 < held < 80


def test_examples_are_asked_for_only_where_they_fit(scale_speed, tmp_path, monkeypatch):
    words = ["scale.py", "--parts", "examples", "--examples", str(10**13), "--scratch", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"GB free, expected 1344000 for 10,000,000,000,000 examples"):
        scale_speed.main()


def test_each_work_is_compared_with_its_neighbours_in_time(monkeypatch):
    """A machine whose clock slows down by 1 with every call: ratios are those of the works all the same."""
    import clocks

    calls = iter(range(1, 100))
    monkeypatch.setattr(clocks, "milliseconds", lambda work: work() * next(calls))
    found = clocks.in_pairs(lambda: 1, {"same": lambda: 1, "thrice": lambda: 3}, repeats=2)
    assert [own.tolist() for own, _ in found.values()] == [[7, 12], [27, 42]]
    for factor, (own, base) in zip((1, 3), found.values(), strict=True):
        assert (own / base).tolist() == [factor] * 2


def test_every_scheme_of_adversarial_training_has_a_record(tmp_path, monkeypatch):
    import adversarial_speed as speed

    monkeypatch.setattr(speed, "SIZES", {"hangul_size": speed.Size(4, 1, 8, 5, 3, (2, 2, 2, 4))})
    monkeypatch.setattr(speed.strength, "__defaults__", (8,))
    monkeypatch.setattr(speed.robustness, "__defaults__", (1, 80, 1))
    monkeypatch.setattr(speed, "TRAINED", ("reuse_3_bf16", "free"))
    arguments = ["--repeats", "2", "--device", "cpu", "--seeds", "1", "--results-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["adversarial_speed.py", *arguments])
    speed.main()
    found = {p.stem: json.loads(p.read_text())["metrics"] for p in (tmp_path / "speed_adversarial").iterdir()}
    kinds = {*speed.SCHEMES, *speed.PASSES, "parts_3", "parts_9"}
    strengths = {f"hangul-strength_{radius}-0" for radius in (1, 2, 4)}
    trained = {f"hangul-trained_{scheme}-0" for scheme in speed.TRAINED}
    assert set(found) == {f"hangul_size-{kind}-0" for kind in kinds} | strengths | trained
    for one in (found[name] for name in trained):
        assert 0 <= one["T1_8"] <= one["T1_4"] <= one["T1_0"] <= 100
    assert found["hangul_size-plain_9-0"]["times_clean"] > found["hangul_size-forward-0"]["times_clean"]
    assert found["hangul_size-reuse_3-0"]["count"] == pytest.approx(10 / 3, abs=1e-3)
    assert all(found["hangul_size-parts_3-0"][f"{part}_ms"] > 0 for part in ("search", "backward"))
    for one in (found[name] for name in strengths):
        assert one["clean"] < one["fast"]
        assert one["clean"] < one["reuse_3"]
        assert one["reuse_3_bf16"] == pytest.approx(one["reuse_3"], rel=0.05)


def test_a_scheme_costs_as_many_units_as_its_module_says():
    """The table at the top of zsl_lib.learn.adversarial, in thirds of a clean iteration."""
    from adversarial_speed import SCHEMES, counted

    units = {scheme: round(3 * counted(scheme)["count"], 6) for scheme in SCHEMES}
    assert (units["plain_3"], units["plain_9"]) == (6 + 2 * 3, 6 + 2 * 9)
    assert (units["reuse_3"], units["reuse_9"]) == (4 + 2 * 3, 4 + 2 * 9)
    assert (units["clean"], units["noise"], units["fast"], units["free"]) == (3, 6, 8, 3)
    assert (units["attacked_only_3"], units["attacked_only_fast"]) == (3 + 2 * 3, 3 + 2)
