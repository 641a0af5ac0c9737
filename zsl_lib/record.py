"""Results as records: one JSON file a run, written whole, checked against a schema.

Every number of the book's tables is read from these files.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats

from zsl_lib.data.dataset import ZSLDataset
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

SELECTION = ("none", "validation", "test")
_number = {"type": "number"}
_text = {"type": "string", "minLength": 1}
_sha256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_name = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.+]*$"}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A run of the book",
    "type": "object",
    "additionalProperties": False,
    "required": [
        "experiment", "dataset", "method", "seed", "parameters", "metrics", "selection", "seconds",
        "peak_memory_mb", "device", "digests", "git_commit", "versions", "command",
    ],
    "properties": {
        "experiment": _name | {"description": "what is compared; the folder of the record"},
        "dataset": _name | {"description": "data set, with its semantics where not 'att', e.g. CUB100+sent"},
        "method": _name,
        "seed": {"type": "integer", "minimum": 0},
        "parameters": {"type": "object", "description": "everything that was set, as the method takes it"},
        "metrics": {"type": "object", "minProperties": 1, "additionalProperties": _number},
        "curves": {
            "type": "object",
            "description": "what was measured along the run: columns of one length, e.g. epoch, seconds, T1",
            "additionalProperties": {"type": "array", "items": _number, "minItems": 1},
        },
        "selection": {"enum": list(SELECTION), "description": "what the setting was chosen on"},
        "seconds": _number | {"minimum": 0, "description": "wall time of the run, figures included"},
        "peak_memory_mb": _number | {"minimum": 0},
        "device": _text,
        "digests": {"type": "object", "additionalProperties": _sha256},
        "git_commit": {"type": "string", "pattern": "^([0-9a-f]{40}(\\+changes)?|unknown)$"},
        "versions": {"type": "object", "additionalProperties": _text},
        "command": _text | {"description": "what to type to get it again"},
        "paper": {
            "type": "object",
            "description": "the paper's number, where data, features and split agree",
            "required": ["source", "metrics"],
            "properties": {"source": _text, "metrics": {"type": "object", "additionalProperties": _number}},
        },
        "unreliable": _text | {"description": "why the result must not be used, if so"},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One run; the fields are described in ``SCHEMA``."""

    experiment: str
    dataset: str
    method: str
    seed: int
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    selection: str
    seconds: float
    peak_memory_mb: float
    device: str
    digests: Mapping[str, str]
    git_commit: str
    versions: Mapping[str, str]
    command: str
    paper: Mapping[str, Any] | None = None
    curves: Mapping[str, Sequence[float]] | None = None
    unreliable: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, validated against the schema; DataError names the field that fails."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        validate(values, f"record {self.experiment}/{self.filename}")
        return values

    @property
    def filename(self) -> str:
        return filename(self.dataset, self.method, self.seed)

    def write(self, folder: str | Path) -> Path:
        """Write ``folder/<experiment>/<dataset>-<method>-<seed>.json``, replacing one that is there."""
        path = Path(folder) / self.experiment / self.filename
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        atomic_write(path, lambda file: file.write(text.encode()))
        return path


@dataclass
class Stopwatch:
    """Measures a run; make it before the work."""

    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def seconds(self) -> float:
        return round(time.perf_counter() - self.started, 2)

    def record(
        self,
        experiment: str,
        dataset: ZSLDataset | str,
        method: str,
        *,
        seed: int,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        selection: str,
        command: str,
        device: str | torch.device = "cpu",
        semantics: str = "att",
        digests: Mapping[str, str] | None = None,
        paper: Mapping[str, Any] | None = None,
        curves: pd.DataFrame | None = None,
    ) -> Record:
        """The record of the run that started with this stopwatch, with its surroundings filled in.

        ``digests`` are the data set's own, unless only its name is given.
        """
        device = torch.device(device)
        if isinstance(dataset, ZSLDataset):
            digests = digests or dataset.digests
            dataset = dataset.name
        return Record(
            experiment=experiment,
            dataset=dataset if semantics == "att" else f"{dataset}+{semantics}",
            method=method,
            seed=seed,
            parameters=dict(parameters),
            metrics={k: round(float(v), 4) for k, v in metrics.items()},
            selection=selection,
            seconds=self.seconds(),
            peak_memory_mb=_peak_memory_mb(device),
            device=_device_name(device),
            digests=dict(digests or {}),
            git_commit=git_commit(),
            versions={"python": platform.python_version()}
            | {p: version(p) for p in ("numpy", "scikit-learn", "scipy", "torch")},
            command=command,
            paper=paper,
            curves=None if curves is None else {str(k): v.tolist() for k, v in curves.round(4).items()},
        )


def filename(dataset: str, method: str, seed: int) -> str:
    """The name of a record's file inside the folder of its experiment."""
    return f"{dataset}-{method}-{seed}.json"


def papermill_command(notebook: str, parameters: Mapping[str, Any]) -> str:
    """The line that runs ``notebooks/<notebook>.ipynb`` with these parameters."""
    given = " ".join(f"-p {key} {shlex.quote(str(value))}" for key, value in parameters.items())
    return f"papermill notebooks/{notebook}.ipynb out.ipynb {given}".strip()


def validate(values: Any, where: str) -> None:
    """Raise DataError, naming ``where`` and the field, unless ``values`` is a record."""
    import jsonschema  # here, because its import takes seconds

    validator = jsonschema.Draft202012Validator(SCHEMA)
    for error in sorted(validator.iter_errors(values), key=lambda e: list(map(str, e.path))):
        key = ".".join(map(str, error.path)) or "record"
        raise DataError(
            f"{where}: {key}", found=error.message, expected="a value that fits zsl_lib.record.SCHEMA"
        )
    for key, value in values["metrics"].items():
        if not is_finite(value):  # JSON has no NaN, and a schema cannot refuse it
            raise DataError(f"{where}: metrics.{key}", found=value, expected="a finite number")
    curves = values.get("curves", {})
    for key, column in curves.items():
        if not all(map(is_finite, column)):
            raise DataError(f"{where}: curves.{key}", found=column, expected="finite numbers")
    if len({len(column) for column in curves.values()}) > 1:
        lengths = {key: len(column) for key, column in curves.items()}
        raise DataError(f"{where}: curves", found=f"lengths {lengths}", expected="one length")


def is_finite(value: float) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def read_records(folder: str | Path, experiment: str = "*") -> pd.DataFrame:
    """All records below ``folder``, one row each: ``metrics`` spread into columns, ``file`` their path.

    Raises
    ------
    DataError: a file that is not a record, or whose name disagrees with its content.
    """
    rows = []
    for path in sorted(Path(folder).glob(f"{experiment}/*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # brackets by the thousand recurse
            raise DataError(str(path), found=f"no JSON ({error})", expected="a record") from error
        validate(values, str(path))
        name = f"{values['experiment']}/{filename(values['dataset'], values['method'], values['seed'])}"
        if f"{path.parent.name}/{path.name}" != name:
            raise DataError(str(path), found=f"a record of {name}", expected="the same name")
        rows.append(values | values["metrics"] | {"file": f"{path.parent.name}/{path.name}"})
    return pd.DataFrame(rows)


def read_curves(folder: str | Path, experiment: str) -> pd.DataFrame:
    """The :func:`curves` of an experiment's records."""
    return curves(read_records(folder, experiment))


def curves(records: pd.DataFrame) -> pd.DataFrame:
    """Curves of records that were read, in long form: one row a point, with dataset, method, seed and file.

    Records without curves are left out.
    """
    parts = []
    for _, one in records.iterrows():
        if isinstance(one.get("curves"), dict):
            key = {k: one[k] for k in ("dataset", "method", "seed", "file")}
            parts.append(pd.DataFrame(one["curves"]).assign(**key))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def summarise(
    records: pd.DataFrame, metrics: Sequence[str], by: Sequence[str], digits: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Mean ± standard deviation over seeds as text, one row a group, with the number of seeds.

    ``digits``: decimals of a metric where they are not 1.
    """
    groups = records.groupby(list(by), sort=False, observed=True)
    digits = digits or {}
    table = pd.DataFrame({m: groups[m].agg(partial(mean_sd, digits=digits.get(m, 1))) for m in metrics})
    table["seeds"] = groups.size()
    return table


def mean_sd(values: pd.Series, digits: int = 1) -> str:
    """``"59.1 ± 0.8"``; without the spread where there is one value, a dash where there is none (NaN)."""
    values = values.dropna()
    if len(values) == 0:
        return "–"
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    mean = math.fsum(values) / len(values)  # exact, so that a tie is rounded the same way everywhere
    return f"{mean:.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def mean_interval(values: pd.Series, level: float = 0.95) -> dict[str, float]:
    """mean, low and high: Student's two-sided confidence interval of the mean of two values or more."""
    mean, half = values.mean(), half_width(values.std(ddof=1), len(values), level)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def half_width(sd: Any, n: Any, level: float = 0.95) -> Any:
    """Half of Student's interval of the mean of ``n`` values with this standard deviation; arrays too."""
    return stats.t.ppf((1 + level) / 2, n - 1) * sd / n**0.5


def paired_differences(
    records: pd.DataFrame, metric: str, *, of: str, baseline: str, level: float = 0.95
) -> pd.DataFrame:
    """Differences of a metric to a baseline at the same seed, with Student's confidence interval of the mean.

    Parameters
    ----------
    of: the column that names what is compared, e.g. ``"method"``. baseline: its value to compare with.
    level: of the two-sided interval.

    Returns
    -------
    One row for each other value: ``mean``, ``low``, ``high`` and the number of ``pairs``. The interval is for
    one comparison; where many are made, some of them miss.

    Raises
    ------
    DataError: no such baseline, two runs of one seed, or fewer than two seeds in common.
    """
    wide = records.set_index([of, "seed"])[metric]
    if not wide.index.is_unique:
        raise DataError(f"paired_differences: {of}", found="two runs of one seed", expected="one")
    if baseline not in wide.index.get_level_values(of):
        raise DataError("paired_differences: baseline", found=repr(baseline), expected=f"a value of {of}")
    rows = {}
    for name in records[of].unique():
        if name == baseline:
            continue
        gaps = (wide[name] - wide[baseline]).dropna()
        if len(gaps) < 2:
            raise DataError(f"paired_differences: {name}", found=f"{len(gaps)} pairs", expected="2 or more")
        rows[name] = mean_interval(gaps, level) | {"pairs": len(gaps)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(of)


def git_commit() -> str:
    """The commit of the running library, with ``+changes`` if the library differs from it.

    Outside a checkout it is the environment's ``GIT_COMMIT``, else "unknown".
    """
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else it is a repository around .venv
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT", "unknown")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads"


def _peak_memory_mb(device: torch.device) -> float:
    """Peak memory: of the GPU's allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; bytes on macOS
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
