import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path


def prepare(address, branch, needs, folder="zsl-book"):
    """Fetch the book and the packages that are missing; what is installed keeps its version, torch too."""
    found = [(d.metadata["Name"] or "", d.version) for d in metadata.distributions()]
    have = {name.lower().replace("_", "-"): version for name, version in found if name}
    missing = [line for line in needs if line.partition(">")[0].partition("=")[0].lower() not in have]
    if not Path(folder).exists():
        subprocess.run(["git", "clone", "-q", "--depth=1", f"--branch={branch}", address, folder], check=True)
    if missing:
        with tempfile.TemporaryDirectory() as work:
            kept = Path(work) / "kept.txt"
            kept.write_text("".join(f"{name}=={version}\n" for name, version in have.items()))
            pip = [sys.executable, "-m", "pip", "install", "-q", "-c", str(kept)]
            subprocess.run([*pip, *missing], check=True)
    os.chdir(Path(folder) / "notebooks")
    sys.path.insert(0, str(Path.cwd().parent))
    print("Ready. Installed:", ", ".join(missing) or "nothing; all of it was there")
