"""The table of a sweep: one row a record, from the runs' own records, and mean ± sd over seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from zsl_lib import record
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write
from zsl_lib.sweep.plan import OWN, Notebook, value_text
from zsl_lib.sweep.run import STATUS, read_status

NAMES = ("experiment", "dataset", "method", "git_commit")  # of a record, which a setting may be called too


def gather(out: str | Path, notebook: Notebook) -> pd.DataFrame:
    """All runs of this notebook, as it is now, in the folder of its sweeps; writes ``summary.csv`` there.

    Returns
    -------
    One row a record, and one for a run without a record: ``run``, ``state``, the seed and the parameters in
    which the runs differ (the notebook's default where none was given), what the record says of itself, its
    metrics, ``seconds`` and ``error``. What is called like a parameter gets ``record_`` in front.
    """
    out = Path(out)
    found = [read_status(path.parent) for path in sorted(out.glob(f"*/{STATUS}"))]
    current = [status for status in found if status and status.digest == notebook.digest]
    complete = [dict(notebook.defaults) | status.settings for status in current]
    varying = [name for name in notebook.defaults if name == "seed" or _differ(name, complete)]
    rows: list[dict[str, Any]] = []
    for status, settings in zip(current, complete, strict=True):
        head = {"run": status.name, "state": status.state if status.ended else "interrupted"}
        head |= {name: _plain(settings[name]) for name in varying}
        folder = out / status.name / OWN["results_dir"]
        records, problem = _records(folder) if status.state == "done" else ([], "")
        tail = {"seconds": status.seconds, "error": status.error or problem}
        taken = {*head, *notebook.defaults, *tail}
        rows += [head | _prefixed(one, taken) | tail for one in records or [{}]]
    table = pd.DataFrame(rows)
    if len(table):
        table = table.sort_values(varying, kind="stable", ignore_index=True) if varying else table
        last = ["seconds", "error"]
        table = table[[*table.columns.drop(last), *last]]
    atomic_write(out / "summary.csv", lambda file: file.write(table.to_csv(index=False).encode()))
    return table


def mean_table(table: pd.DataFrame, notebook: Notebook) -> pd.DataFrame:
    """Mean ± sd over seeds of each metric, one row for each other setting; empty without records.

    Metrics below 10 throughout have three decimals, others one, as percentages have.
    """
    fixed = {"run", "state", "seconds", "error", *notebook.defaults, *NAMES, *(f"record_{n}" for n in NAMES)}
    metrics = [name for name in table.columns if name not in fixed]
    settings = [name for name in table.columns if name in notebook.defaults and name != "seed"]
    settings += [n for n in ("method", "record_method") if n in table and n not in settings]
    done = table[table[metrics].notna().any(axis=1)] if metrics else table.iloc[:0]
    if done.empty:
        return pd.DataFrame()
    digits = {name: 1 if done[name].abs().max() >= 10 else 3 for name in metrics}
    return record.summarise(done, metrics, settings, digits)


def _differ(name: str, settings: list[dict[str, Any]]) -> bool:
    return len({value_text(one[name]) for one in settings}) > 1


def _plain(value: Any) -> Any:
    """Lists and mappings as text, which a table can be grouped by."""
    return value if isinstance(value, str | int | float) else value_text(value)


def _records(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Names and metrics of a run's records, and what is wrong with them if something is."""
    try:
        records = record.read_records(folder)
    except DataError as error:
        return [], str(error)
    return [
        {name: one[name] for name in NAMES} | dict(one["metrics"]) for one in records.to_dict("records")
    ], ""


def _prefixed(values: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    return {f"record_{name}" if name in taken else name: value for name, value in values.items()}
