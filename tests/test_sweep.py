"""Sweeps: what is typed, runs that fail in each way, full disks, killed workers, a Dask cluster."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import joblib
import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsl_lib import DataError
from zsl_lib.sweep import prepare, sweep, work, workers
from zsl_lib.sweep.__main__ import main
from zsl_lib.sweep.plan import Run, parse_seeds, parse_settings, read_notebook, run_name, value_text
from zsl_lib.sweep.run import ATTEMPTS, Status, _environment, execute, read_status, state_of
from zsl_lib.sweep.summary import gather, mean_table

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = """\
seed = 0  # of the draw
sigma = 0.5  # what it is multiplied with
fault = "none"  # what goes wrong
steps = [1, 2]  # a list
flag = False  # a switch
checkpoint = ""  # file of the state
results_dir = "_build/results"  # where the record goes
"""
# A record as zsl_lib writes it, without the seconds that the import of torch takes.
WORK = """\
import json, os, pathlib, random, signal, time
worker = os.getppid()
started = pathlib.Path(f"started-{fault}-{worker}")
started.touch()
if fault == "raise" and not pathlib.Path("cured").exists():
    raise ValueError("no such setting")
if fault == "exit":
    os._exit(3)
if fault == "endless":
    while True:
        pass
if fault == "kill":
    os.kill(worker, signal.SIGKILL)
    time.sleep(60)
if fault == "wait":
    while not pathlib.Path("go").exists():
        time.sleep(0.1)
if fault == "long":
    print("x" * 200_000)
values = {
    "experiment": "toy", "dataset": "made-up".replace("-", "_"), "method": "draw", "seed": seed,
    "parameters": {"sigma": sigma}, "metrics": {"T1": 100 * sigma * random.Random(seed).random()},
    "selection": "none", "seconds": 0, "peak_memory_mb": 0, "device": "cpu", "digests": {},
    "git_commit": "unknown", "versions": {}, "command": "none",
}
path = pathlib.Path(results_dir, "toy", f"made_up-draw-{seed}.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(values))
print("threads", os.environ.get("OMP_NUM_THREADS"))
"""
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write_notebook(path: Path, *cells: str) -> Path:
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": KERNEL}), path)
    return path


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_notebook(tmp_path / "toy.ipynb", PARAMETERS, WORK)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "JUPYTER_PATH")}
    return subprocess.run(
        [sys.executable, "-m", "zsl_lib.sweep", "toy.ipynb", *words],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- what is typed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-3", [0, 1, 2, 3]), ("0,3,5", [0, 3, 5]), ("7", [7]), ("2-3, 0,3", [2, 3, 0]), ("4-4", [4])],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-", "1.5", "0,,2"])
def test_seeds_that_are_none(text):
    with pytest.raises(DataError, match=re.escape(f"--seeds: found {text!r}, expected seeds such as 0-9")):
        parse_seeds(text)


def test_values_have_the_types_that_python_gives_them():
    words = ["a=0.1,1,1e-3,-2E+5", "b=true,no,on", "c=[1, 2],[]", "d=CUB100,'x, y',2020-01-01", "e=data/CUB"]
    found = parse_settings(words)
    assert found["a"] == [0.1, 1, 1e-3, -2e5]
    assert [type(value) for value in found["a"]] == [float, int, float, float]
    assert found["b"] == [True, "no", "on"]
    assert found["c"] == [[1, 2], []]
    assert found["d"] == ["CUB100", "x, y", "2020-01-01"]
    assert found["e"] == ["data/CUB"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sigma"], "--set: found 'sigma', expected name=value"),
        (["=3"], "--set: found '=3', expected name=value"),
        (["sigma="], "--set: found 'sigma=', expected name=value"),
        (["a b=1"], "--set: found 'a b=1', expected name=value"),
        (["sigma=1", "sigma=2"], "--set: found sigma twice, expected all its values behind one name"),
        (["sigma=[1"], "--set sigma: found [1, expected YAML values (quote"),
    ],
)
def test_settings_that_are_none(words, message):
    with pytest.raises(DataError, match=re.escape(message)):
        parse_settings(words)


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@settings(deadline=None)
@given(plain | st.lists(plain, max_size=3))
def test_a_value_can_be_typed_again(value):
    assert parse_settings([f"a={value_text(value)}"]) == {"a": [value]}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), plain | st.lists(plain, max_size=3)))
def test_a_name_is_a_folder_and_depends_on_the_settings_alone(given_values):
    name = run_name(given_values)
    assert re.fullmatch(r"[A-Za-z0-9_.+=,-]{1,110}", name)
    assert not name.startswith(".")
    assert name == run_name(dict(given_values))
    assert name != run_name(given_values | {"a": "something else"})


# --- the notebook and its runs -------------------------------------------------------------------------


def test_the_runs_are_the_product_with_the_seed_fastest(toy):
    _, runs = prepare(toy, {"seed": [0, 1], "sigma": [0.1, 0.3]})
    assert [dict(run.settings) for run in runs] == [
        {"sigma": sigma, "seed": seed} for sigma in (0.1, 0.3) for seed in (0, 1)
    ]
    assert runs[0].name.startswith("sigma=0.1,seed=0-")
    assert runs[0].folder == Path.cwd() / "_build/sweep/toy" / runs[0].name
    assert runs[0].own == {"results_dir": str(runs[0].folder / "results")}


def test_a_run_keeps_its_name_in_whatever_way_its_settings_are_given(toy):
    _, first = prepare(toy, {"seed": [0, 1, 1], "sigma": [0.1]})
    _, second = prepare(toy, {"sigma": [0.3, 0.1], "seed": [1]})
    assert len(first) == 2
    assert first[1].name == second[1].name


def test_unknown_parameters_end_it_before_anything_runs(toy, capsys):
    assert main([str(toy), "--seeds", "0-1", "--set", "sigam=1", "x=2"]) == 2
    assert "found no parameter sigam, x, expected some of its parameters (seed, sigma, fault" in (
        capsys.readouterr().err
    )
    assert not Path("_build").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "sigma=0.1,abc"], "parameter sigma: found abc, expected a number (its default is 0.5)"),
        (["--set", "fault=1"], "parameter fault: found 1, expected text (its default is none)"),
        (["--set", "flag=1"], "parameter flag: found 1, expected true or false (its default is false)"),
        (["--set", "steps=1,2"], "parameter steps: found 1, expected a list (its default is [1, 2])"),
        (
            ["--set", "results_dir=x"],
            "parameter results_dir: found a value, expected none: each run has its own",
        ),
        (["--set", "checkpoint=x"], "each run has its own (--checkpoint)"),
        (["--seeds", "0-1", "--set", "seed=3"], "--seeds: found seed in --set too, expected one of them"),
        (["--seeds", "x"], "--seeds: found 'x'"),
        (["--timeout", "0"], "--timeout: found 0.0, expected a number above 0"),
        (["--threads", "-1"], "--threads: found -1, expected a number above 0"),
        (["--jobs", "0"], "--jobs: found 0, expected 1 or more"),
        (["--jobs", "2", "--dask", "tcp://127.0.0.1:1"], "--jobs: found 2, expected none with --dask"),
        (["-f", "missing.yaml"], "missing.yaml: found No such file or directory, expected a YAML file"),
        (["-f", "list.yaml"], "list.yaml: found list, expected a YAML file of parameter: value"),
        (["-f", "broken.yaml"], "broken.yaml: found no YAML"),
        (["-f", "foreign.yaml"], "foreign.yaml: found no parameter of"),
    ],
)
def test_wrong_commands(toy, capsys, words, message):
    for name, text in {"list": "[1]", "broken": "a: [", "foreign": "epochs: 3"}.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    assert main([str(toy), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("_build/sweep/toy/*/run.json"))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [("a.ipynb", None, "no file"), ("a.py", "x = 1", ".py"), ("a.ipynb", "{", "JSON"), ("a.ipynb", "{}", "")],
)
def test_what_is_no_notebook(tmp_path, name, text, found):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    message = f"{re.escape(name)}: found .*{re.escape(found)}.*, expected a notebook"
    with pytest.raises(DataError, match=message):
        read_notebook(tmp_path / name)


def test_values_from_python_are_plain(toy):
    with pytest.raises(DataError, match="parameter seed: found int64, expected a plain Python value"):
        prepare(toy, {"seed": np.arange(2)})
    assert len(prepare(toy, {"seed": range(2), "steps": [(1, 2)]})[1]) == 2


def test_a_notebook_without_parameters(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "print(1)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata["tags"] = []
    nbformat.write(notebook, path)
    with pytest.raises(DataError, match="none: it has no cell tagged `parameters`"):
        prepare(path, {"seed": [0]})
    with pytest.raises(DataError, match="found no parameter checkpoint, expected one for --checkpoint"):
        prepare(path, {}, checkpoint=True)
    assert [run.name.split("-")[0] for run in prepare(path, {})[1]] == ["defaults"]


def test_a_missing_package_says_how_to_get_it(toy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert main([str(toy)]) == 2
    assert "pip install 'zsl-book[book]'" in capsys.readouterr().err


def test_a_parameter_file_gives_what_the_notebook_has_and_set_wins(toy, capsys):
    Path("a.yaml").write_text("sigma: 1e-1\nepochs: 50\nfault: exit\n", encoding="utf-8")
    assert main([str(toy), "-f", "a.yaml", "--set", "fault=none,raise", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert f"not in {toy}, left out: epochs" in said.err
    names = [line.split()[1] for line in said.out.splitlines()[:2]]
    assert [name.rsplit("-", 1)[0] for name in names] == ["sigma=0.1,fault=none", "sigma=0.1,fault=raise"]
    assert "2 runs (2 new) in _build/sweep/toy" in said.out
    assert not Path("_build").exists()


def test_outputs_and_text_change_no_digest_but_code_does(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", PARAMETERS, "print(1)")
    digest = read_notebook(path).digest
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    notebook.cells.append(nbformat.v4.new_markdown_cell("# A title"))
    nbformat.write(notebook, path)
    assert read_notebook(path).digest == digest
    write_notebook(path, PARAMETERS, "print(2)")
    assert read_notebook(path).digest != digest


# --- status --------------------------------------------------------------------------------------------


def one_run(toy: Path, **settings: object) -> Run:
    """A run of the notebook, its source in place as :func:`work` puts it there."""
    notebook, (run,) = prepare(toy, {name: [value] for name, value in settings.items()})
    run.source.parent.mkdir(parents=True)
    run.source.write_text(notebook.text, encoding="utf-8")
    return run


def write_status(run: Run, **fields: object) -> None:
    values = {"name": run.name, "settings": dict(run.settings), "digest": run.digest, "sweep": run.sweep}
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "run.json").write_text(json.dumps(values | fields), encoding="utf-8")


def test_states(toy):
    run = one_run(toy, seed=3)
    assert state_of(run) == "new"
    for state, expected in {"running": "interrupted", "failed": "failed", "done": "new"}.items():
        write_status(run, state=state)
        assert state_of(run) == expected
    (run.folder / "notebook.ipynb").touch()
    assert state_of(run) == "done"
    assert state_of(replace(run, digest="another")) == "changed"


def test_a_status_that_is_none_is_named(toy):
    run = one_run(toy)
    write_status(run, colour="red")
    with pytest.raises(DataError, match=r"run\.json: found .*colour.*remove the file"):
        state_of(run)


def test_an_answer_that_got_lost_with_its_worker_is_given_again(toy):
    run = one_run(toy)
    write_status(run, state="done", seconds=3.0)
    assert execute(run) == read_status(run.folder)


def test_a_run_that_took_its_worker_down_each_time_is_not_started_again(toy):
    run = one_run(toy)
    write_status(run, state="running", attempts=ATTEMPTS)
    (run.folder / "running.ipynb").write_text("{}", encoding="utf-8")
    status = execute(run)
    assert (status.state, status.error) == ("failed", "its worker was killed 2 times (out of memory?)")
    assert read_status(run.folder) == status
    assert sorted(path.name for path in run.folder.iterdir()) == ["failed.ipynb", "run.json"]


def test_a_worker_that_does_not_see_the_folder_says_so(toy):
    run = replace(one_run(toy), cwd=Path("/nowhere"))
    message = f"/nowhere: found nothing on {socket.gethostname()}, expected it (every worker must see"
    assert execute(run).error.startswith(message)


def test_a_checkpoint_stays_until_its_run_is_done_or_its_notebook_changed(toy, monkeypatch):
    notebook, (run,) = prepare(toy, {"seed": [0]}, checkpoint=True)
    run.source.parent.mkdir(parents=True)
    run.source.write_text(notebook.text, encoding="utf-8")
    checkpoint = run.folder / "checkpoint.pt"
    assert run.own["checkpoint"] == str(checkpoint)
    found = []

    def stop(run):
        found.append(checkpoint.exists())
        checkpoint.touch()
        raise RuntimeError("stopped")

    monkeypatch.setattr("zsl_lib.sweep.run._run_notebook", stop)
    for sweep_id, digest in [("1", "old"), ("2", "old"), ("3", "new")]:
        status = execute(replace(run, sweep=sweep_id, digest=digest))
        assert status.error == "RuntimeError: stopped"
    assert found == [False, True, False]
    monkeypatch.setattr("zsl_lib.sweep.run._run_notebook", lambda run: found.append(checkpoint.exists()))
    assert execute(replace(run, sweep="4", digest="new")).state == "done"
    assert found[-1]
    assert not checkpoint.exists()


def test_what_an_earlier_run_left_does_not_pass_for_this_ones(toy, monkeypatch):
    run = one_run(toy)
    write_status(run, state="done", sweep="another", digest="another")
    for name in ("notebook.ipynb", "results/toy/a.json", ".run.json.half"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).touch()

    def stop(run):
        raise OSError

    monkeypatch.setattr("zsl_lib.sweep.run._run_notebook", stop)
    assert execute(run).error == "OSError:"
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


def test_a_worker_imports_neither_torch_nor_pandas():
    code = "import sys, zsl_lib.sweep.workers; print({'torch', 'pandas', 'papermill'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"


def test_a_sweep_that_is_stopped_says_how_to_go_on(toy, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("zsl_lib.sweep.__main__.work", stop)
    assert main([str(toy)]) == 130
    assert capsys.readouterr().err.endswith("stopped; the same command goes on from here\n")


# --- the table -----------------------------------------------------------------------------------------


def done_run(run: Run, **values: object) -> None:
    """A run that is done, with a record of these fields."""
    write_status(run, state="done", seconds=1.5)
    (run.folder / "notebook.ipynb").touch()
    record = {"experiment": "toy", "dataset": "toy", "method": "draw", "seed": run.settings["seed"]}
    record |= {"parameters": {}, "metrics": {"T1": 50.0}, "selection": "none", "seconds": 0}
    record |= {"peak_memory_mb": 0, "device": "cpu", "digests": {}, "git_commit": "unknown", "versions": {}}
    path = run.folder / "results/toy" / f"toy-draw-{run.settings['seed']}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | {"command": "none"} | values), encoding="utf-8")


def test_the_table_has_earlier_sweeps_with_the_defaults_that_they_ran_with(toy):
    notebook, (default,) = prepare(toy, {"seed": [0]})
    _, runs = prepare(toy, {"seed": [0, 1], "sigma": [0.1], "steps": [[3]]})
    done_run(default, metrics={"T1": 20.0, "loss": 0.1234})
    done_run(runs[0], metrics={"T1": 30.0, "sigma": 7.0})
    done_run(runs[1], metrics={"T1": 40.0, "sigma": 9.0})
    write_status(prepare(toy, {"seed": [2]})[1][0], state="done", digest="of another notebook")
    write_status(prepare(toy, {"seed": [3]})[1][0], state="running")
    table = gather(default.folder.parent, notebook)
    assert list(table["sigma"]) == [0.1, 0.5, 0.1, 0.5]
    assert list(table["steps"]) == ["[3]", "[1, 2]", "[3]", "[1, 2]"]
    assert list(table["seed"]) == [0, 0, 1, 3]
    assert list(table["state"]) == ["done", "done", "done", "interrupted"]
    assert list(table["record_sigma"].dropna()) == [7, 9]
    means = mean_table(table, notebook)
    assert means.loc[(0.1, "[3]", "draw"), "T1"] == "35.0 ± 7.1"
    assert means.loc[(0.5, "[1, 2]", "draw"), "loss"] == "0.123"
    written = pd.read_csv(default.folder.parent / "summary.csv", keep_default_na=False)
    assert list(written["run"]) == list(table["run"])


def test_a_record_that_is_none_is_reported_and_the_exit_code_is_1(toy, capsys):
    _, runs = prepare(toy, {"seed": [0, 1]})
    done_run(runs[0])
    done_run(runs[1], metrics={})
    assert main([str(toy), "--seeds", "0-1"]) == 1
    said = capsys.readouterr()
    assert "2 runs (2 done)" in said.out
    assert re.search(rf"unusable record of {runs[1].name}: .*toy-draw-1.json: metrics: found", said.err)


def test_runs_without_records_make_a_table_of_states(toy, capsys):
    _, (run,) = prepare(toy, {"seed": [0]})
    write_status(run, state="done")
    (run.folder / "notebook.ipynb").touch()
    assert main([str(toy), "--seeds", "0"]) == 0
    assert "no records: the runs wrote none into results_dir" in capsys.readouterr().out


def test_one_sweep_at_a_time_in_a_folder(toy):
    notebook, runs = prepare(toy, {"seed": [0]})
    write_status(runs[0], state="done")
    (runs[0].folder / "notebook.ipynb").touch()
    assert list(work(notebook, runs)) == []
    code = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(); input()"
    lock = runs[0].folder.parent / ".lock"
    other = subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"\n"
        with pytest.raises(DataError, match="found another sweep at work, expected none"):
            list(work(notebook, runs))
    finally:
        other.communicate(b"\n", timeout=60)
    assert list(work(notebook, runs)) == []


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


# --- a full disk ---------------------------------------------------------------------------------------


LIMITED = """\
import pickle, resource, sys
from zsl_lib.sweep.run import execute
limit = int(sys.argv[1])
run = pickle.load(sys.stdin.buffer)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # bytes that a file may have
print(execute(run).error)
"""


def execute_with_limited_files(run: Run, limit: int) -> str:
    """The error of the run in a process that cannot write more into a file, as on a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit)],
        input=pickle.dumps(run),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    return done.stdout.decode().strip()


def test_a_disk_that_is_full_from_the_start_leaves_nothing(toy):
    run = one_run(toy)
    error = execute_with_limited_files(run, 0)
    assert error == f"[Errno {errno.EFBIG}] File too large: '{run.folder / 'run.json'}'"
    assert list(run.folder.iterdir()) == []
    assert state_of(run) == "new"


def test_a_disk_that_fills_up_leaves_no_half_of_a_notebook(toy):
    run = one_run(toy, fault="long")
    error = execute_with_limited_files(run, 100_000)
    assert error == f"[Errno {errno.EFBIG}] File too large: '{run.folder / 'notebook.ipynb'}'"
    assert sorted(path.name for path in run.folder.iterdir()) == ["results", "run.json"]
    assert read_status(run.folder).error == error
    assert state_of(run) == "failed"


# --- one machine ---------------------------------------------------------------------------------------

FAULTS = {
    "none": "",
    "raise": "code cell [3] raised ValueError: no such setting",
    "exit": "code cell [3]: the kernel died (it was killed, for memory perhaps, or ended itself)",
    "endless": "code cell [3]: no end within 10 s",
    "kill": "its worker was killed 2 times (out of memory?)",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep over each fault, two runs at a time, as it is typed."""
    folder = tmp_path_factory.mktemp("faulty")
    write_notebook(folder / "toy.ipynb", PARAMETERS, WORK)
    faults = f"fault={','.join(FAULTS)}"
    return folder, command(folder, "--seeds", "4", "--set", faults, "--jobs", "2", "--timeout", "10")


def folder_of(base: Path, fault: str) -> Path:
    (found,) = base.glob(f"_build/sweep/toy/fault={fault},seed=4-*")
    return found


def test_failed_runs_are_reported_and_the_others_done(faulty):
    folder, done = faulty
    assert done.returncode == 1, done.stderr
    assert "5 runs (5 new) in _build/sweep/toy" in done.stdout
    assert "\n4 of 5 runs failed:" in done.stderr
    for fault, error in FAULTS.items():
        status = read_status(folder_of(folder, fault))
        assert (status.state, status.error) == ("failed" if error else "done", error)
        assert f"{status.state:<6} {status.name} ({status.seconds:.1f} s) {error}".rstrip() in done.stdout
        if error:
            assert f"- {status.name}\n  {error}\n" in done.stderr


def test_a_failed_run_leaves_its_notebook_as_far_as_it_came(faulty):
    folder, done = faulty
    for fault, error in FAULTS.items():
        files = {path.name for path in folder_of(folder, fault).iterdir()}
        assert files == ({"run.json", "failed.ipynb"} if error else {"run.json", "notebook.ipynb", "results"})
        if error:
            path = folder_of(folder, fault) / "failed.ipynb"
            nbformat.validate(nbformat.read(path, as_version=4))
            assert f"  as far as it came: {path.relative_to(folder)}\n" in done.stderr
    raised = nbformat.read(folder_of(folder, "raise") / "failed.ipynb", as_version=4)
    outputs = [output for cell in raised.cells for output in cell.get("outputs", [])]
    assert [output.ename for output in outputs] == ["ValueError"]


def test_the_done_run_is_whole(faulty):
    path = folder_of(faulty[0], "none")
    notebook = nbformat.read(path / "notebook.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    (text,) = [output.text for cell in notebook.cells for output in cell.outputs]
    assert text == f"threads {max(joblib.cpu_count() // 2, 1)}\n"
    assert json.loads((path / "results/toy/made_up-draw-4.json").read_text())["metrics"] == {"T1": VALUE}


VALUE = 100 * 0.5 * random.Random(4).random()


def test_a_kernel_gets_what_make_gives_it(monkeypatch):
    exports = dict(re.findall(r"^export (\w+) \?= (\w+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(exports) == 4
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE"})
    _environment(None)
    assert exports | {"OMP_WAIT_POLICY": "ACTIVE"} == {name: os.environ[name] for name in exports}


def test_no_kernel_is_left(faulty):
    folder, _ = faulty
    wait_for(lambda: not kernels_in(folder))


def test_the_table_has_every_run(faulty):
    folder, done = faulty
    table = pd.read_csv(folder / "_build/sweep/toy/summary.csv", keep_default_na=False)
    columns = ["run", "state", "seed", "fault", "experiment", "dataset", "method", "git_commit", "T1"]
    assert list(table.columns) == [*columns, "seconds", "error"]
    assert dict(zip(table["fault"], table["error"], strict=True)) == FAULTS
    assert list(table["T1"][table["fault"] == "none"].astype(float)) == [VALUE]
    assert set(table["T1"][table["fault"] != "none"]) == {""}
    assert "written: _build/sweep/toy/summary.csv, 5 rows" in done.stdout


def test_the_command_of_a_failed_run_runs_it_again_and_no_other(faulty):
    folder, done = faulty
    found = re.search(r"again: python -m zsl_lib\.sweep toy\.ipynb (.*fault=raise.*)", done.stderr)
    words = shlex.split(found[1])
    assert words == ["--set", "fault=raise", "seed=4", "--timeout", "10.0"]
    (folder / "cured").touch()
    kept = (folder_of(folder, "none") / "notebook.ipynb").stat().st_mtime_ns
    done = command(folder, "--set", "fault=none,raise", "seed=4", "--jobs", "1", "--threads", "3")
    assert done.returncode == 0, done.stderr
    assert "2 runs (1 done, 1 failed)" in done.stdout
    assert (folder_of(folder, "none") / "notebook.ipynb").stat().st_mtime_ns == kept
    assert not (folder_of(folder, "raise") / "failed.ipynb").exists()
    notebook = (folder_of(folder, "raise") / "notebook.ipynb").read_text()
    assert "threads 3" in notebook
    assert re.search(rf"none +draw +{VALUE:.1f} +1\n.*raise +draw +{VALUE:.1f} +1\n", done.stdout)
    table = pd.read_csv(folder / "_build/sweep/toy/summary.csv")
    assert sorted(table["state"]) == ["done", "done", "failed", "failed", "failed"]


def kernels_in(folder: Path) -> list[psutil.Process]:
    found = [p for p in psutil.process_iter(["cwd", "cmdline"]) if p.info["cwd"] == str(folder)]
    return [p for p in found if "ipykernel_launcher" in p.info["cmdline"]]


def test_a_killed_sweep_takes_its_workers_along_and_goes_on(toy, tmp_path):
    words = ["--set", "fault=wait", "--jobs", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "zsl_lib.sweep", str(toy), *words], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: list(tmp_path.glob("started-wait-*")))
    assert len(kernels_in(tmp_path)) == 1
    running.kill()
    running.wait()
    (started,) = tmp_path.glob("started-wait-*")
    wait_for(lambda: not psutil.pid_exists(int(started.name.rsplit("-")[-1])))
    wait_for(lambda: not kernels_in(tmp_path))
    (run,) = prepare(toy, {"fault": ["wait"]})[1]
    assert state_of(run) == "interrupted"
    assert not (run.folder / "notebook.ipynb").exists()
    Path("go").touch()
    done = command(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "1 run (1 interrupted)" in done.stdout
    assert state_of(run) == "done"
    assert [p.name for p in run.folder.iterdir() if p.name.startswith(("running", ".", "failed"))] == []


# --- a cluster -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, started as the page on set-up says, on a free port."""
    distributed = pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    commands = (
        ["scheduler", "--host", host, "--port", port, "--no-dashboard"],
        ["worker", f"tcp://{address}", "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
    )
    folder = tmp_path_factory.mktemp("cluster")
    with (folder / "log").open("wb") as log:
        dask = str(Path(sys.executable).with_name("dask"))
        started = [subprocess.Popen([dask, *c], env=env, cwd=folder, stderr=log) for c in commands]
        try:
            with distributed.Client(address, timeout=120, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=120)
            yield f"tcp://{address}"
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=60)


def records(out: Path) -> dict[str, object]:
    found = sorted(out.glob("*/results/toy/*.json"))
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in found}


def test_a_cluster_gives_what_one_process_gives(toy, cluster):
    grid = {"seed": [0, 1], "sigma": [0.3]}
    table = sweep(toy, grid, out="cluster", dask=cluster)
    assert list(table["state"]) == ["done", "done"]
    alone = sweep(toy, grid, out="alone", jobs=1)
    assert table.drop(columns="seconds").equals(alone.drop(columns="seconds"))
    assert len(records(Path("cluster"))) == 2
    assert records(Path("cluster")) == records(Path("alone"))


def test_killed_workers_of_a_cluster(toy, cluster):
    """One is killed from outside, once; the other by its own run, each time."""
    notebook, runs = prepare(toy, {"fault": ["wait", "kill"]})
    ended = work(notebook, runs, dask=cluster)
    first = next(ended)
    assert first.settings == {"fault": "kill"}
    assert first.error == "its worker was killed 2 times (out of memory?)"
    assert first.attempts == ATTEMPTS
    (waiting,) = Path().glob("started-wait-*")
    os.kill(int(waiting.name.rsplit("-")[-1]), signal.SIGKILL)
    Path("go").touch()
    (second,) = ended
    assert (second.state, second.settings, second.attempts) == ("done", {"fault": "wait"}, 2)
    assert len(records(Path("_build/sweep/toy"))) == 1


class Future(SimpleNamespace):
    __hash__ = object.__hash__


class FakeDask:
    """What :func:`workers.cluster` uses of ``distributed``; ``fates``: what each submission ends in."""

    class KilledWorker(Exception):
        pass

    def __init__(self, fates: dict[str, list[object]]) -> None:
        self.fates, self.keys, self.loop = fates, [], None

    def submit(self, function, run, key):
        self.keys.append(key)
        return Future(result=lambda: self.end(self.fates[run.name].pop(0)))

    def end(self, fate):
        if isinstance(fate, BaseException):
            raise fate
        return fate

    def as_completed(self, futures, loop):
        self.waiting = list(futures)
        return self

    def add(self, future):
        self.waiting.append(future)

    def __iter__(self):
        while self.waiting:
            yield self.waiting.pop(0)


def test_what_a_scheduler_gives_up(toy, monkeypatch):
    _, runs = prepare(toy, {"seed": list(range(5))})
    innocent, culprit, hopeless, cancelled, ended = runs
    killed = FakeDask.KilledWorker("gave up")
    done = Status(innocent.name, {}, "", innocent.sweep, state="done")
    write_status(culprit, state="running", attempts=2)
    write_status(ended, state="done")
    dask = FakeDask(
        {
            innocent.name: [killed, killed, done],
            culprit.name: [killed],
            hopeless.name: [killed, killed, killed],
            cancelled.name: [CancelledError("scheduler gone")],
            ended.name: [CancelledError()],
        }
    )
    monkeypatch.setattr("zsl_lib.sweep.workers.optional", lambda *names: dask)
    monkeypatch.setattr("zsl_lib.sweep.workers._client", lambda *arguments: nullcontext(dask))
    found = {status.name: status for status in workers.cluster(runs, "tcp://127.0.0.1:1")}
    assert found[innocent.name] == done
    assert found[culprit.name].error == "its worker was killed 2 times (out of memory?)"
    assert found[hopeless.name].error == "no worker gave an answer: KilledWorker: gave up"
    assert found[cancelled.name].error == "no worker gave an answer: CancelledError: scheduler gone"
    assert found[ended.name].state == "done"
    assert len(dask.keys) == len(set(dask.keys)) == 3 + 1 + 3 + 1 + 1


def test_processes_that_cannot_start_fail_all_runs_once(toy, monkeypatch):
    _, runs = prepare(toy, {"seed": [0, 1]})

    def broken(*arguments):
        raise BrokenProcessPool("no process")
        yield

    monkeypatch.setattr("zsl_lib.sweep.workers._pool", broken)
    errors = [status.error for status in workers.local(runs, 2)]
    assert errors == ["no worker gave an answer: BrokenProcessPool: no process"] * 2


def test_a_cluster_without_workers(toy, capsys, monkeypatch, cluster):
    def wait(*arguments, **options):
        raise TimeoutError

    monkeypatch.setattr("distributed.Client.wait_for_workers", wait)
    assert main([str(toy), "--dask", cluster]) == 2
    hint = f"start some: dask worker {cluster} --nworkers 2 --nthreads 1"
    assert f"--dask {cluster}: found no worker, expected one or more ({hint})" in capsys.readouterr().err


def test_a_cluster_that_is_not_there(toy, capsys, monkeypatch):
    monkeypatch.setattr("zsl_lib.sweep.workers.PATIENCE", 1)
    assert main([str(toy), "--dask", "tcp://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert "--dask tcp://127.0.0.1:9: found" in said
    assert "expected a Dask scheduler (start one: dask scheduler --host 127.0.0.1" in said
    assert main([str(toy), "--dask", "nonsense://x"]) == 2
    assert "expected a Dask scheduler" in capsys.readouterr().err
