"""The published benchmarks from their publishers, and what is in your data folder.

python -m zsl_lib.data list                 what can be fetched, and what is there
python -m zsl_lib.data fetch CUB            download, check, unpack
python -m zsl_lib.data check                check all that is there; or by name, your own folders too
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from zsl_lib.data import data_root
from zsl_lib.data.fetch import check, fetch, place, terms
from zsl_lib.data.published import SOURCES
from zsl_lib.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zsl_lib.data", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="list | fetch | check")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument(
        "--root",
        type=Path,
        help="data folder (default: ZSL_DATA_DIR, else data; weights: torch's own folder)",
    )
    command = commands.add_parser("list", parents=[everywhere])
    command.set_defaults(run=_list)
    command = commands.add_parser("fetch", parents=[everywhere])
    command.add_argument("name", nargs="+", choices=list(SOURCES), metavar="NAME", help=", ".join(SOURCES))
    command.add_argument("--remove-archive", action="store_true", help="delete the archive afterwards")
    command.set_defaults(run=_fetch)
    command = commands.add_parser("check", parents=[everywhere])
    command.add_argument("name", nargs="*", metavar="NAME", help="default: all of `list` that is there")
    command.set_defaults(run=_check)
    return parser


def _list(options: argparse.Namespace) -> int:
    for name, source in SOURCES.items():
        path = place(name, options.root)
        there = str(path) if path.exists() else "not there"
        print(f"{name:<12} {source.size or '?':>6}  {source.url}\n{'':<12} {there}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    return _each(options.name, lambda name: _fetch_one(name, options))


def _check(options: argparse.Namespace) -> int:
    names = options.name or [name for name in SOURCES if place(name, options.root).exists()]
    if not names:
        print(f"nothing of `list` in {data_root(options.root)}")
    return _each(names, lambda name: print(f"{name}: {check(name, options.root)}"))


def _fetch_one(name: str, options: argparse.Namespace) -> None:
    source = SOURCES[name]
    print(f"{name}: {source.url}\n{terms(name)}", flush=True)
    print(f"{name}: {fetch(name, options.root)}")
    print(f"{name}: {check(name, options.root)}")
    if options.remove_archive and source.holds is not None:
        (data_root(options.root) / source.file).unlink(missing_ok=True)


def _each(names: list[str], work: Callable[[str], None]) -> int:
    """1 if one of them failed; the others have their turn all the same."""
    failed = 0
    for name in names:
        try:
            work(name)
        except (DataError, OSError) as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
