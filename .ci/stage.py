"""Put the book's sources and the executed notebooks together in _build/book, for Jupyter Book.

    python .ci/stage.py

Run from the root of the repository, after the notebooks were executed into _build/notebooks.
"""

import shutil
import sys
from pathlib import Path

BUILD = Path("_build")
HANGUL = "zsl_lib/data/hangul"
FILES = ("_config.yml", "_toc.yml", "references.bib", "CHANGELOG.md", "CONTRIBUTING.md")
INCLUDED = (f"{HANGUL}/README.md", f"{HANGUL}/fonts.csv")  # by book/hangul.md
FOLDERS = ("book", "_static")


def main() -> int:
    stage = BUILD / "book"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for name in FILES:
        if not Path(name).exists():
            sys.exit(f"{name}: not found; expected in the root of the repository")
        shutil.copy2(name, stage / name)
    for name in INCLUDED:
        if Path(name).exists():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, stage / name)
    for name in FOLDERS:
        if Path(name).is_dir():
            ignore = shutil.ignore_patterns(".*", "__pycache__")
            shutil.copytree(name, stage / name, ignore=ignore)
    for source in sorted(Path("notebooks").glob("[0-9]*.py")):
        executed = BUILD / "notebooks" / f"{source.stem}.ipynb"
        if not executed.exists():
            sys.exit(f"{executed}: not found; expected the executed run of {source}")
        shutil.copy2(executed, stage / "notebooks" / executed.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
