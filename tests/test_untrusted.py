"""No file is read in a way that could run what it holds: pickles, and YAML that makes objects."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("zsl_lib", "results", "benchmarks", ".ci", "notebooks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
LOADERS = {"joblib.load", "pandas.read_pickle", "torch.hub.load", "torch.package.PackageImporter"}
SAFE = {"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"}


def findings(source: str) -> list[str]:
    """``"line: name"`` of each call or import that could run what a file holds."""
    tree = ast.parse(source)
    names = imported(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            found += [(node.lineno, name) for name in modules if name.split(".")[0] in PICKLES]
        if isinstance(node, ast.Call) and (name := dotted(node.func, names)) and is_unsafe(name, node, names):
            found.append((node.lineno, name))
    return [f"{line}: {name}" for line, name in sorted(found)]


def imported(tree: ast.Module) -> dict[str, str]:
    """What a name stands for: ``np`` for numpy, ``load`` for torch.load, a class for what it derives from."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module or ''}.{a.name}" for a in node.names}
        elif isinstance(node, ast.ClassDef) and len(node.bases) == 1:
            names[node.name] = ast.unparse(node.bases[0])
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """``"torch.load"``; empty for what is no plain name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


def is_unsafe(name: str, call: ast.Call, names: dict[str, str]) -> bool:
    given = {k.arg: k.value for k in call.keywords}
    if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
        return not is_constant(given.get("weights_only"), True)
    if name in ("numpy.load", "numpy.lib.format.read_array"):
        places = {"numpy.load": 2, "numpy.lib.format.read_array": 1}[name]
        value = given.get("allow_pickle", call.args[places] if len(call.args) > places else None)
        return value is not None and not is_constant(value, False)
    if name in ("yaml.load", "yaml.load_all"):
        loader = given.get("Loader", call.args[1] if len(call.args) > 1 else None)
        return loader is None or dotted(loader, names).split(".")[-1] not in SAFE
    if name.startswith("torch.distributed."):  # these send pickles between machines
        return "_object" in name
    unsafe_yaml = name.startswith("yaml.") and name.split(".")[-1].startswith(("unsafe_load", "full_load"))
    return name in LOADERS or unsafe_yaml


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_there_is_something_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(FOLDERS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_that_is_read_can_run(path):
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import dill",
        "import torch\ntorch.load('a.pt')",
        "import torch\ntorch.load('a.pt', weights_only=False)",
        "import torch\ntorch.load('a.pt', weights_only=trusted)",
        "import torch as t\nt.load('a.pt')",
        "from torch import load as get\nget('a.pt')",
        "import torch\nclass A:\n    def f(self):\n        return [torch.load(p) for p in self.x]",
        "import torch.hub\ntorch.hub.load_state_dict_from_url(url)",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "import numpy as np\nnp.load('a.npy', None, True)",
        "import numpy as np\nnp.load('a.npy', allow_pickle=trusted)",
        "import torch.distributed as dist\ndist.broadcast_object_list(x)",
        "from joblib import load\nload('a')",
        "import joblib\njoblib.load('a')",
        "import pandas as pd\npd.read_pickle('a')",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nclass SafeLoader(yaml.Loader): ...\nyaml.load(text, SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load_all\nfull_load_all(text)",
    ],
)
def test_a_planted_line_is_found(line):
    assert len(findings(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch.load('a.pt', map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load('a.npy')",
        "import numpy as np\nnp.load('a.npy', mmap_mode='r', allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.CSafeLoader)",
        "import yaml\nclass Loader(yaml.SafeLoader): ...\nyaml.load(text, Loader)",
        "from joblib import Parallel\nParallel(2)",
        "from zsl_lib.data import load\nload('CUB')",
        "import json\njson.load(file)",
    ],
)
def test_a_harmless_line_is_not(line):
    assert findings(line) == []
