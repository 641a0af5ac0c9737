"""ImageNet-21K's classes in WordNet 3.0: names, glosses, hypernyms, and the zero-shot protocol's class sets.

The table inside the package is made by ``python -m zsl_lib.data.wordnet.build``; see README.md beside this
file for its licence. No image and no network is needed.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from zsl_lib.errors import DataError

__all__ = ["HOPS", "PUBLISHED_SIZES", "Hierarchy", "hop_sets", "imagenet_tree", "load", "published_sets"]

HERE = Path(__file__).parent
TABLE = HERE / "synsets.tsv.gz"
COLUMNS = ("wnid", "kind", "hypernyms", "lemmas", "gloss")
KINDS = ("seen", "unseen", "ancestor")
HOPS = ("2-hops", "3-hops", "all")
PUBLISHED_SIZES = {"2-hops": 1549, "3-hops": 7860, "all": 20842}  # of the lists, which a test compares

# The eight subtrees of ImageNet's browser; classes outside all of them were listed under "Misc".
SUBTREES = {
    "n00015388": "animal",
    "n00017222": "plant",
    "n00021939": "artifact",
    "n00007846": "person",
    "n12992868": "fungus",
    "n09287968": "geological formation",
    "n00019128": "natural object",
    "n00523513": "sport",
}
ANIMAL, TEDDY = "n00015388", "n04399382"
MISC = "misc"


@dataclass(frozen=True)
class Hierarchy:
    """Synsets and their hypernyms.

    Attributes
    ----------
    seen: the 1,000 classes of ILSVRC 2012, in the order of its labels.
    unseen: the other 20,842, sorted.
    hypernyms: for each synset (class or ancestor of one) those right above it; one may have several.
    lemmas: for each synset its names, the most usual first. glosses: its definition.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    hypernyms: Mapping[str, tuple[str, ...]]
    lemmas: Mapping[str, tuple[str, ...]]
    glosses: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The seen classes, then the unseen ones: 21,842."""
        return self.seen + self.unseen

    def name(self, wnid: str) -> str:
        """The synset's most usual name."""
        return self.lemmas[wnid][0]

    def text(self, wnid: str) -> str:
        """``"lemma, lemma: gloss"``, what a sentence encoder is given."""
        return f"{', '.join(self.lemmas[wnid])}: {self.glosses[wnid]}"

    def ancestors(self, wnid: str) -> set[str]:
        """All synsets above this one, by whichever way."""
        found: set[str] = set()
        todo = list(self.hypernyms[wnid])
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo.extend(self.hypernyms[node])
        return found

    def distances(self, sources: Iterable[str], limit: int | None = None) -> dict[str, int]:
        """Edges, up or down, from each synset to the nearest of ``sources`` (which have 0).

        Synsets further than ``limit`` edges, or not connected, are left out.

        Raises
        ------
        DataError: an unknown source, or a negative limit.
        """
        if limit is not None and limit < 0:
            raise DataError("distances: limit", found=limit, expected="0 or more")
        found = dict.fromkeys(self._known(sources), 0)
        reached, edges = list(found), 0
        while reached and (limit is None or edges < limit):
            edges += 1
            around = {n for node in reached for n in self._neighbours[node] if n not in found}
            found |= dict.fromkeys(around, edges)
            reached = list(around)
        return found

    def _known(self, wnids: Iterable[str]) -> list[str]:
        listed = list(wnids)
        if strange := [w for w in listed if w not in self.hypernyms]:
            found = f"{len(strange)} that are not in the table, e.g. {strange[0]!r}"
            raise DataError("synsets", found=found, expected="ImageNet-21K's, as n01440764")
        return listed

    @functools.cached_property
    def _neighbours(self) -> dict[str, list[str]]:
        """Hypernyms and hyponyms of each synset."""
        around = {node: list(above) for node, above in self.hypernyms.items()}
        for node, above in self.hypernyms.items():
            for hypernym in above:
                around[hypernym].append(node)
        return around


@functools.cache
def load(path: Path = TABLE) -> Hierarchy:
    """The table of the package.

    Raises
    ------
    DataError: the file is missing or damaged, or a hypernym is not in it.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        hint = "git checkout it"
        raise DataError(str(path), found=f"no table ({error})", expected="synsets", hint=hint) from None
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)) or [[]]
    for i, row in enumerate(rows):
        if len(row) != len(COLUMNS) or (i == 0 and tuple(row) != COLUMNS) or (i and row[1] not in KINDS):
            raise DataError(f"{path}: line {i + 1}", found=row[:3] or "nothing", expected=", ".join(COLUMNS))
    rows = rows[1:]
    hypernyms = {row[0]: tuple(row[2].split()) for row in rows}
    lost = {above for row in hypernyms.values() for above in row} - set(hypernyms)
    if lost:
        raise DataError(f"{path}: hypernyms", found=f"{len(lost)} without a line", expected="a line each")
    return Hierarchy(
        seen=tuple(row[0] for row in rows if row[1] == "seen"),
        unseen=tuple(row[0] for row in rows if row[1] == "unseen"),
        hypernyms=hypernyms,
        lemmas={row[0]: tuple(row[3].split("|")) for row in rows},
        glosses={row[0]: row[4] for row in rows},
    )


def imagenet_tree(hierarchy: Hierarchy) -> Hierarchy:
    """WordNet's graph with two changes that reconcile it with the published class sets.

    - Classes outside the eight subtrees of :data:`SUBTREES` hang from one node, "Misc".
    - *teddy* is a kind of *animal*, not of *plaything*.

    Both are inferred: with them the published 2-hops come out exactly and the 3-hops all but exactly (the
    book's chapter 12 counts). ImageNet's own file of its tree, which would settle it, is not at hand.
    """
    below = {w for w in hierarchy.classes if not (hierarchy.ancestors(w) | {w}) & set(SUBTREES)}
    extra = {w: (*hierarchy.hypernyms[w], MISC) for w in below}
    hypernyms = {**hierarchy.hypernyms, **extra, TEDDY: (ANIMAL,), MISC: ()}
    return replace(hierarchy, hypernyms=hypernyms)


def hop_sets(
    hierarchy: Hierarchy, seen: Iterable[str] | None = None, candidates: Iterable[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Unseen classes by their distance from the seen ones: ``2-hops``, ``3-hops`` and ``all``.

    A "hop" of the published sets is a node of the path, both ends counted: their 2-hops are the classes one
    edge away from a seen one, parents and children, and their 3-hops those at most two edges away. Each set
    holds the one before.

    Parameters
    ----------
    hierarchy: WordNet's graph as it is, or :func:`imagenet_tree` of it, nearer to the published sets.
    seen: classes learned from; the 1,000 if None. candidates: the classes to choose from; all others if None.
    """
    known = tuple(seen) if seen is not None else hierarchy.seen
    others = set(hierarchy.classes if candidates is None else candidates) - set(known)
    edges = hierarchy.distances(known, limit=2)
    near = {f"{h}-hops": {w for w in others if edges.get(w, 3) < h} for h in (2, 3)}
    return {name: tuple(sorted(wnids)) for name, wnids in {**near, "all": others}.items()}


def published_sets(path: Path | str) -> dict[str, tuple[str, ...]]:
    """The published class sets from ``imagenet-testsets.json`` of DGP (Kampffmeyer et al., CVPR 2019).

    Returns the entries of :data:`HOPS`, and ``seen``.

    Raises
    ------
    DataError: no such file, no JSON, or an entry that is missing or holds what is no synset.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(str(path), found=f"no JSON ({error})", expected="lists of synsets") from None
    sets = {}
    for key, name in {"train": "seen", **{h: h for h in HOPS}}.items():
        wnids = content.get(key) if isinstance(content, dict) else None
        if not isinstance(wnids, list) or not all(isinstance(w, str) and w[:1] == "n" for w in wnids):
            raise DataError(f"{path}: {key}", found="no list of synsets", expected="as n01440764")
        sets[name] = tuple(wnids)
    return sets
