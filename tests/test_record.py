"""Records: what is written is whole, valid and read back; the book's tables follow from it."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small_dataset
from scipy import stats

from zsl_lib import record
from zsl_lib.errors import DataError
from zsl_lib.files import project_root
from zsl_lib.record import (
    SCHEMA,
    Record,
    Stopwatch,
    git_commit,
    mean_sd,
    papermill_command,
    read_curves,
    read_records,
    summarise,
    validate,
)

RESULTS = Path(__file__).parent.parent / "results"


def made(**changes) -> Record:
    values = Record(
        experiment="zsl",
        dataset="toy",
        method="ABP",
        seed=0,
        parameters={"sigma": 0.3, "betas": [0.9, 0.999], "note": "σ"},
        metrics={"T1": 58.5, "H": 50.6},
        selection="validation",
        seconds=1.5,
        peak_memory_mb=300.0,
        device="cpu",
        digests={"res101.mat": "0" * 64},
        git_commit="a" * 40,
        versions={"torch": "2.6"},
        command="papermill x.ipynb out.ipynb",
    )
    return replace(values, **changes)


# --- writing and reading -------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written(tmp_path):
    paper = {"source": "Table 1", "metrics": {"T1": 58.5}}
    path = made(paper=paper).write(tmp_path)
    assert path == tmp_path / "zsl" / "toy-ABP-0.json"
    (row,) = read_records(tmp_path).to_dict("records")
    for key, value in made(paper=paper).to_json().items():
        assert row[key] == value
    assert (row["T1"], row["H"], row["file"]) == (58.5, 50.6, "zsl/toy-ABP-0.json")


def test_writing_again_gives_the_same_bytes(tmp_path):
    a = made().write(tmp_path).read_bytes()
    b = made(parameters=dict(reversed(made().parameters.items()))).write(tmp_path).read_bytes()
    assert a == b
    assert "σ" in a.decode()


def test_one_experiment_can_be_read_alone(tmp_path):
    made().write(tmp_path)
    made(experiment="gzsl", seed=3).write(tmp_path)
    assert len(read_records(tmp_path)) == 2
    assert read_records(tmp_path, "gzsl")["seed"].tolist() == [3]


def test_no_records_are_an_empty_table(tmp_path):
    assert read_records(tmp_path / "nothing").empty


def test_a_failure_while_writing_leaves_the_old_record(tmp_path, monkeypatch):
    path = made().write(tmp_path)
    kept = path.read_bytes()

    def full_disk(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        made(metrics={"T1": 1.0}).write(tmp_path)
    assert path.read_bytes() == kept
    assert list(path.parent.iterdir()) == [path]


def test_an_invalid_record_is_never_written(tmp_path):
    with pytest.raises(DataError):
        made(selection="lucky").write(tmp_path)
    assert not list(tmp_path.rglob("*.json"))


# --- what is refused -----------------------------------------------------------------------------------


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experiment", "../elsewhere"),
        ("dataset", "CUB-att"),  # the hyphen separates the parts of the file's name
        ("method", ""),
        ("seed", -1),
        ("seed", 0.5),
        ("metrics", {}),
        ("metrics", {"T1": "58.5"}),
        ("metrics", {"T1": float("nan")}),
        ("metrics", {"T1": float("inf")}),
        ("selection", "lucky"),
        ("seconds", -1.0),
        ("digests", {"res101.mat": "abc"}),
        ("git_commit", "main"),
        ("command", ""),
        ("paper", {"metrics": {"T1": 58.5}}),
        ("unreliable", ""),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_record_and_field(key, value):
    changed = made(**{key: value})
    with pytest.raises(DataError) as caught:
        changed.to_json()
    assert caught.value.where.startswith(f"record {changed.experiment}/{changed.filename}: {key}")


@pytest.mark.parametrize("key", sorted(SCHEMA["required"]))
def test_a_missing_field_is_named(key):
    values = made().to_json()
    del values[key]
    with pytest.raises(DataError, match=f"here.json: record: found '{key}' is a required property"):
        validate(values, "here.json")


def test_an_unknown_field_is_named():
    with pytest.raises(DataError, match="'tuned_on_test' was unexpected"):
        validate(made().to_json() | {"tuned_on_test": True}, "here.json")


def test_reading_names_file_and_field(tmp_path):
    path = made().write(tmp_path)
    path.write_text(json.dumps(made().to_json() | {"seed": "zero"}))
    with pytest.raises(DataError) as caught:
        read_records(tmp_path)
    assert caught.value.where == f"{path}: seed"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    path = made().write(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DataError, match="found no JSON") as caught:
        read_records(tmp_path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["zsl/toy-ABP-1.json", "gzsl/toy-ABP-0.json", "zsl/CUB-ABP-0.json"])
def test_a_name_that_disagrees_with_the_content_is_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    made().write(tmp_path).rename(path)
    with pytest.raises(DataError, match=r"found a record of zsl/toy-ABP-0\.json") as caught:
        read_records(tmp_path)
    assert caught.value.where == str(path)


def test_every_committed_record_is_valid():
    if not list(RESULTS.glob("*/*.json")):
        pytest.skip("no records yet")
    table = read_records(RESULTS)
    assert not table.duplicated(["experiment", "dataset", "method", "seed"]).any()
    assert len(table) == len(list(RESULTS.rglob("*.json"))), "a record in no experiment's folder"


# --- tables --------------------------------------------------------------------------------------------


def test_mean_and_standard_deviation_by_hand():
    assert mean_sd(pd.Series([58.0, 60.0, 62.0])) == "60.0 ± 2.0"  # n − 1: √((4 + 0 + 4) / 2)
    assert mean_sd(pd.Series([58.04])) == "58.0"
    assert mean_sd(pd.Series([58.0, float("nan"), 62.0])) == "60.0 ± 2.8"
    assert mean_sd(pd.Series([float("nan")])) == "–"


def test_summarise_by_hand(tmp_path):
    for seed, t1, h in [(0, 58, 50), (1, 60, 50), (2, 62, 53)]:
        made(seed=seed, metrics={"T1": t1, "H": h}).write(tmp_path)
    made(method="ESZSL", metrics={"T1": 53.9, "H": 21.0}).write(tmp_path)
    table = summarise(read_records(tmp_path), ["T1", "H"], ["dataset", "method"])
    assert table.loc[("toy", "ABP")].tolist() == ["60.0 ± 2.0", "51.0 ± 1.7", 3]
    assert table.loc[("toy", "ESZSL")].tolist() == ["53.9", "21.0", 1]


# --- how it was made -----------------------------------------------------------------------------------


def papermill_reads(command: str) -> dict[str, object]:
    """What ``papermill`` takes from the line, by its own parser."""
    from click.testing import CliRunner
    from papermill import cli

    found: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "execute_notebook", lambda **given: found.update(given))
        done = CliRunner().invoke(cli.papermill, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (found["input_path"], found["output_path"]) == ("notebooks/05_abp.ipynb", "out.ipynb")
    return found["parameters"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"dataset": "CUB", "epochs": 50, "sigma": 0.3, "lr": 1e-05, "scaled": True, "root": None},
        {"note": 'it\'s $HOME; rm -rf * "x" σ', "empty": "", "negative": -1},
    ],
)
def test_papermill_reads_the_parameters_from_its_command(parameters):
    assert papermill_reads(papermill_command("05_abp", parameters)) == parameters


def test_a_stopwatch_fills_in_the_surroundings(tmp_path):
    watch, data = Stopwatch(), replace(small_dataset(), name="made.up", digests={"a.mat": "f" * 64})
    options = {"seed": 1, "parameters": {}, "metrics": {"T1": torch.tensor(58.512345)}, "selection": "none"}
    found = watch.record("zsl", data, "ABP", command="x", semantics="sent", **options)
    assert found.dataset == "made.up+sent"
    assert watch.record("zsl", data, "ABP", command="x", **options).dataset == "made.up"
    assert found.metrics == {"T1": 58.5123}
    assert found.digests == data.digests
    assert found.versions["torch"] == torch.__version__
    assert 0 <= found.seconds <= watch.seconds()
    assert found.peak_memory_mb > 50, "torch alone takes more"
    found.write(tmp_path)
    assert len(read_records(tmp_path)) == 1


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the module's place in the world, outside this checkout."""
    folder = tmp_path / "repository" / "zsl_lib"
    folder.mkdir(parents=True)
    (folder / "record.py").write_text("# the library\n")
    monkeypatch.setattr(record, "__file__", str(folder / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMIT"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_outside_a_checkout_the_environment_names_the_commit(library, monkeypatch):
    assert git_commit() == "unknown"
    monkeypatch.setenv("GIT_COMMIT", "b" * 40)
    assert git_commit() == "b" * 40


def test_in_a_checkout_the_commit_is_its_own_and_changes_are_marked(library, monkeypatch):
    monkeypatch.setenv("GIT_COMMIT", "b" * 40)
    root = library.parent
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    commit = git(root, "rev-parse", "HEAD")
    assert git_commit() == commit
    (root / "notes.txt").write_text("outside the library")
    assert git_commit() == commit
    (library / "record.py").write_text("# changed\n")
    assert git_commit() == f"{commit}+changes"


def test_a_library_installed_inside_another_repository_does_not_take_its_commit(library, monkeypatch):
    """As pip does it, in a virtual environment that the reader's own repository ignores."""
    monkeypatch.setenv("GIT_COMMIT", "b" * 40)
    root = library.parent
    (root / ".gitignore").write_text("zsl_lib/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    assert git_commit() == "b" * 40


def test_the_project_root_is_the_folder_of_the_books_contents(tmp_path, monkeypatch):
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_root() == below.resolve()
    (tmp_path / "_toc.yml").touch()
    assert project_root() == tmp_path.resolve()


# --- paired differences --------------------------------------------------------------------------------


def runs(**methods: dict[int, float]) -> pd.DataFrame:
    rows = [{"method": m, "seed": s, "T1": v} for m, seeds in methods.items() for s, v in seeds.items()]
    return pd.DataFrame(rows)


def test_paired_differences_are_scipys_interval_over_the_common_seeds():
    a, b = {0: 60.0, 1: 62.0, 2: 61.0, 3: 63.5}, {0: 59.0, 1: 60.5, 2: 61.5, 3: 62.0, 9: 10.0}
    found = record.paired_differences(runs(base=b, other=a), "T1", of="method", baseline="base").loc["other"]
    test = stats.ttest_rel([a[s] for s in range(4)], [b[s] for s in range(4)])
    interval = test.confidence_interval(0.95)
    assert found["pairs"] == 4
    assert found["mean"] == pytest.approx(0.875)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_paired_differences_cancel_what_a_seed_does_to_both():
    noise = dict(enumerate(np.random.default_rng(0).normal(0, 10, 6)))
    shifted = {s: v + 1 for s, v in noise.items()}
    found = record.paired_differences(runs(a=noise, b=shifted), "T1", of="method", baseline="a").loc["b"]
    assert (found["low"], found["high"]) == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("frame", "baseline", "message"),
    [
        (runs(a={0: 1.0}, b={0: 1.0}), "c", "found 'c', expected a value of method"),
        (runs(a={0: 1.0}, b={0: 1.0}), "a", "b: found 1 pairs, expected 2 or more"),
        (pd.concat([runs(a={0: 1.0}), runs(a={0: 2.0})]), "a", "two runs of one seed"),
    ],
)
def test_what_cannot_be_paired_is_a_data_error(frame, baseline, message):
    with pytest.raises(DataError, match=message):
        record.paired_differences(frame, "T1", of="method", baseline=baseline)


def test_a_summary_has_the_digits_asked_for():
    frame = runs(a={0: 1.0, 1: 2.0})
    assert record.summarise(frame, ["T1"], ["method"], {"T1": 3}).loc["a", "T1"] == "1.500 ± 0.707"


# --- curves ----------------------------------------------------------------------------------------------

CURVES = {"epoch": [1.0, 2.0], "T1": [40.0, 50.0]}


def test_curves_come_back_in_long_form_with_their_run(tmp_path):
    made(curves=CURVES).write(tmp_path)
    made(seed=1, curves={"epoch": [1.0], "T1": [45.0]}).write(tmp_path)
    made(seed=2).write(tmp_path)
    found = read_curves(tmp_path, "zsl")
    assert found[["seed", "epoch", "T1"]].values.tolist() == [[0, 1, 40], [0, 2, 50], [1, 1, 45]]
    assert set(found["file"]) == {"zsl/toy-ABP-0.json", "zsl/toy-ABP-1.json"}


def test_an_experiment_without_curves_has_an_empty_table(tmp_path):
    made().write(tmp_path)
    assert read_curves(tmp_path, "zsl").empty


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"T1": [1.0, float("nan")]}, "curves.T1: found .*nan.*, expected finite numbers"),
        ({"T1": [1.0], "epoch": [1.0, 2.0]}, "curves: found lengths .*'T1': 1.*, expected one length"),
        ({"T1": []}, "curves.T1"),
    ],
)
def test_curves_must_be_finite_and_of_one_length(tmp_path, curves, message):
    with pytest.raises(DataError, match=message):
        made(curves=curves).write(tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_a_stopwatch_takes_curves_from_a_table():
    table = pd.DataFrame({"epoch": [1, 2], "T1": [40.123456, 50.0]})
    options = {"seed": 1, "parameters": {}, "metrics": {"T1": 50.0}, "selection": "none"}
    found = Stopwatch().record("e", "toy", "ABP", command="x", curves=table, **options)
    assert found.to_json()["curves"] == {"epoch": [1, 2], "T1": [40.1235, 50.0]}


def test_the_interval_of_a_mean_is_scipys():
    values = pd.Series([1.0, 2.5, 2.0, 4.0])
    found = record.mean_interval(values, 0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["mean"] == pytest.approx(values.mean())
