"""What a sweep runs: seeds and values as they are typed, checked against the notebook's parameters."""

from __future__ import annotations

import ast
import hashlib
import importlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zsl_lib.errors import DataError

OWN = {"results_dir": "results", "checkpoint": "checkpoint.pt"}  # parameters that a run gets in its folder
PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


class Loader(yaml.SafeLoader):
    """YAML without dates, with 1e-3 for a number, and with `no` and `on` for words, as in Python."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class Dumper(yaml.SafeDumper):
    """Writes what :class:`Loader` reads back."""


Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers
Dumper.add_representer(tuple, Dumper.represent_list)


@dataclass(frozen=True)
class Notebook:
    """A notebook that was read: its path, its text without outputs, and its parameters with their defaults.

    ``digest``: SHA-256 of its code. A default that is no plain value has the text of its expression.
    """

    path: Path
    text: str
    digest: str
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run, in plain values: it is sent to another process, or another machine.

    Parameters
    ----------
    settings: the parameters that were given. own: those that the sweep gives, files in ``folder``.
    source, digest: the notebook to run, and the SHA-256 of its code.
    cwd: the folder that the notebook runs in. threads: of its kernel; None: as the worker has them.
    timeout: seconds. sweep: a word that no other call of the program has.
    """

    name: str
    folder: Path
    source: Path
    digest: str
    settings: Mapping[str, Any]
    own: Mapping[str, str]
    cwd: Path
    threads: int | None
    timeout: float | None
    sweep: str


def optional(module: str, extra: str) -> Any:
    """A package that only sweeps need. ImportError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module}: {error}; pip install 'zsl-book[{extra}]'") from error


# --- what is typed -------------------------------------------------------------------------------------


def parse_seeds(text: str) -> list[int]:
    """``"0-2,7"`` ↦ 0, 1, 2, 7, each once. DataError: something else."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise DataError("--seeds", found=repr(text), expected="seeds such as 0-9 or 0,3,5")
        seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
    return list(dict.fromkeys(seeds))


def parse_settings(words: Iterable[str]) -> dict[str, list[Any]]:
    """``["sigma=0.1,0.3", "dataset=CUB100"]`` ↦ the values of each parameter, typed as YAML types them.

    A comma inside brackets or quotes parts nothing.

    Raises
    ------
    DataError: no ``name=values``, values that are no YAML, or a name that comes twice.
    """
    settings: dict[str, list[Any]] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name.isidentifier() or not text:
            raise DataError("--set", found=repr(word), expected="name=value or name=value,value")
        if name in settings:
            raise DataError("--set", found=f"{name} twice", expected="all its values behind one name")
        try:
            settings[name] = yaml.load(f"[{text}]", Loader)
        except yaml.YAMLError as error:
            hint = "quote text with signs in it, as in name='\"a: b\"'"
            raise DataError(f"--set {name}", found=text, expected="YAML values", hint=hint) from error
    return settings


def value_text(value: Any) -> str:
    """What to type for a value, so that :func:`parse_settings` gives it back."""
    text = yaml.dump([value], Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.strip()[1:-1]


def read_parameters(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Parameters of papermill's parameter files; a later file wins. DataError: no file, or no mapping."""
    parameters: dict[str, Any] = {}
    for path in map(Path, paths):
        expected = "a YAML file of parameter: value"
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), Loader)
        except OSError as error:
            raise DataError(str(path), found=error.strerror, expected=expected) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(str(path), found=f"no YAML ({error})", expected=expected) from error
        if not isinstance(values, dict):
            raise DataError(str(path), found=type(values).__name__, expected=expected)
        parameters |= values
    return parameters


# --- the notebook --------------------------------------------------------------------------------------


def read_notebook(path: str | Path) -> Notebook:
    """DataError: no file, or no notebook. ImportError: papermill is not installed."""
    papermill, nbformat = optional("papermill", "book"), optional("nbformat", "book")
    path, expected = Path(path), "a notebook (.ipynb)"
    if not path.is_file():
        raise DataError(str(path), found="no file", expected=expected)
    if path.suffix != ".ipynb":
        raise DataError(str(path), found=path.suffix or "no suffix", expected=expected)
    try:
        notebook = nbformat.read(path, as_version=4)
        parameters = papermill.inspect_notebook(path)
    except Exception as error:  # each of the two has errors of its own
        raise DataError(str(path), found=str(error).splitlines()[0], expected=expected) from error
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    digest = hashlib.sha256(json.dumps([[cell.source, cell.metadata.get("tags")] for cell in code]).encode())
    defaults = {name: _literal(one["default"]) for name, one in parameters.items()}
    return Notebook(path, nbformat.writes(notebook), digest.hexdigest(), defaults)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check(notebook: Notebook, grid: Mapping[str, Sequence[Any]]) -> None:
    """DataError: a parameter that the notebook does not have, or a value that is of another kind."""
    unknown = [name for name in grid if name not in notebook.defaults]
    if unknown:
        has = ", ".join(notebook.defaults) or "none: it has no cell tagged `parameters`"
        expected = f"some of its parameters ({has})"
        raise DataError(str(notebook.path), found=f"no parameter {', '.join(unknown)}", expected=expected)
    for name, values in grid.items():
        where, expected = f"parameter {name}", _kind(notebook.defaults[name])
        if name in OWN:
            hint = "--checkpoint" if name == "checkpoint" else "see --out"
            raise DataError(where, found="a value", expected="none: each run has its own", hint=hint)
        if not values:
            raise DataError(where, found="no value", expected="one or more")
        for value in values:
            if type(value) not in PLAIN:
                raise DataError(where, found=type(value).__name__, expected="a plain Python value")
            if expected and _kind(value) != expected:
                hint = f"its default is {value_text(notebook.defaults[name])}"
                raise DataError(where, found=value_text(value), expected=expected, hint=hint)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else ""


# --- the runs ------------------------------------------------------------------------------------------


def product(notebook: Notebook, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination once, the last parameter of the notebook fastest, but the seed fastest of all."""
    names = sorted((n for n in notebook.defaults if n in grid), key=lambda name: name == "seed")
    settings = [dict(zip(names, v, strict=True)) for v in itertools.product(*(grid[n] for n in names))]
    return list({run_name(one): one for one in settings}.values())


def run_name(settings: Mapping[str, Any]) -> str:
    """``"sigma=0.1,seed=3-1a2b3c4d"``: of the settings alone, in their order, and a digest of all of them."""
    text = ",".join(f"{name}={value_text(value)}" for name, value in settings.items()) or "defaults"
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()
    return re.sub(r"[^A-Za-z0-9_.+=,-]+", "_", text)[:100] + "-" + digest[:8]
