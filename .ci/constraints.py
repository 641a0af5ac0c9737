"""Remake constraints.txt: one version of every package, for Python 3.11 to 3.13, Linux and macOS.

    python .ci/constraints.py [--upgrade]

Needs uv on PATH. Versions already in the file stay where they still fit, unless --upgrade is given.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """\
# Exact versions that work together on Python 3.11 to 3.13 (Linux, macOS).
# Remade with `make constraints`. torch brings its own CUDA packages where it is a CUDA build.
"""
CUDA = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def main() -> int:
    if shutil.which("uv") is None:
        sys.exit("make constraints: uv not found on PATH; it resolves for all platforms at once")
    target = Path("constraints.txt")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "constraints.txt"
        if target.exists():
            shutil.copy(target, output)
        command = ["uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--quiet"]
        command += ["--python-version", "3.11", "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--output-file", str(output), *sys.argv[1:]]
        links = os.environ.get("PIP_FIND_LINKS", "")
        subprocess.run(command, check=True, env={**os.environ, "UV_FIND_LINKS": links})
        lines = output.read_text(encoding="utf-8").splitlines()
    pins = [line.replace("+cpu", "") for line in lines if "==" in line and not line.startswith(CUDA)]
    target.write_text(HEADER + "\n".join(sorted(pins)) + "\n", encoding="utf-8")
    print(f"{target}: {len(pins)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
