"""Make ``synsets.tsv.gz`` from WordNet 3.0's ``data.noun`` and timm's lists of ImageNet's classes.

    apt-get install wordnet-base
    python -m zsl_lib.data.wordnet.build [/usr/share/wordnet/data.noun]

The layout of ``data.noun`` is that of the manual page wndb(5WN). Kept are ImageNet-21K's 21,842 classes and
all that is above them; the same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

from zsl_lib.data.wordnet import COLUMNS, TABLE
from zsl_lib.errors import DataError
from zsl_lib.files import atomic_write

SOURCE = Path("/usr/share/wordnet/data.noun")
KIND_OF = "@"  # "@i", an instance of, is left out: ImageNet has four such classes, e.g. the sun


class Synset(NamedTuple):
    """One line of ``data.noun``."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str


def read_nouns(path: Path) -> dict[str, Synset]:
    """All nouns of WordNet by their ImageNet name, "n" and the eight digits of the line's offset."""
    lines = path.read_text(encoding="latin-1").splitlines()
    return dict(_synset(line) for line in lines if not line.startswith("  "))  # the licence is indented


def _synset(line: str) -> tuple[str, Synset]:
    """``offset file kind w_cnt (word id)… p_cnt (symbol offset pos source)… | gloss``; w_cnt in base 16."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    end = 4 + 2 * int(fields[3], 16)
    words = (word.replace("_", " ") for word in fields[4:end:2])
    pointers = fields[end + 1 :]
    pairs = zip(pointers[: 4 * int(fields[end]) : 4], pointers[1 : 4 * int(fields[end]) : 4], strict=True)
    above = [f"n{offset}" for symbol, offset in pairs if symbol == KIND_OF]
    return f"n{fields[0]}", Synset(tuple(words), tuple(above), _definition(gloss))


def _definition(gloss: str) -> str:
    """The gloss without its examples, which follow in quotation marks."""
    return gloss.split('; "')[0].strip()


def imagenet_lists() -> tuple[list[str], list[str]]:
    """The 1,000 classes of ILSVRC 2012 in the order of their labels, and all 21,842, from timm's files.

    timm is not imported: its lists are files of text.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise ImportError("timm: not installed; pip install 'zsl-book[images]'")
    folder = Path(spec.origin).parent / "data" / "_info"
    names = ("imagenet_synsets.txt", "imagenet22k_ms_synsets.txt")
    seen, all_of_them = ((folder / name).read_text(encoding="utf-8").split() for name in names)
    return seen, all_of_them


def table(nouns: dict[str, Synset], seen: list[str], classes: list[str]) -> str:
    """The lines of the table: seen classes, unseen ones, ancestors.

    Raises
    ------
    DataError: a class that WordNet lacks, or a text with a tab or a bar in it.
    """
    if lost := [w for w in classes if w not in nouns]:
        raise DataError("data.noun", found=f"no {lost[0]}", expected="WordNet 3.0, which ImageNet names")
    unseen = sorted(set(classes) - set(seen))
    above, todo = set[str](), [*seen, *unseen]
    while todo:
        fresh = set(nouns[todo.pop()].hypernyms) - above
        above |= fresh
        todo += fresh
    kinds = {"seen": seen, "unseen": unseen, "ancestor": sorted(above - set(classes))}
    lines = ["\t".join(COLUMNS)]
    for kind, wnids in kinds.items():
        for wnid in wnids:
            synset = nouns[wnid]
            fields = [wnid, kind, " ".join(synset.hypernyms), "|".join(synset.lemmas), synset.gloss]
            if any("\t" in field for field in fields) or any("|" in lemma for lemma in synset.lemmas):
                raise DataError(f"data.noun: {wnid}", found="a tab or a bar", expected="plain text")
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    seen, classes = imagenet_lists()
    text = table(read_nouns(Path(arguments[0]) if arguments else SOURCE), seen, classes)
    packed = gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)
    atomic_write(TABLE, lambda file: file.write(packed))
    print(f"{TABLE.name}: {text.count(chr(10)) - 1} synsets, {len(packed) / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
