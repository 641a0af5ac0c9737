"""ImageNet-21K's classes in WordNet: the table, distances, and the published class sets."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import networkx
import pytest

from zsl_lib.data import wordnet
from zsl_lib.data.wordnet import Hierarchy, build, hop_sets, imagenet_tree, published_sets
from zsl_lib.errors import DataError

HEADER = "\t".join(wordnet.COLUMNS)
NOUNS = """\
  1 This software and database is being provided to you.
00000001 03 n 01 thing 0 002 ~ 00000010 n 0000 ~ 00000020 n 0000 | what there is; "a thing"
00000010 03 n 02 hot_dog 0 frank 1 001 @ 00000001 n 0000 | food; with a bun; "two hot dogs, please"
00000020 03 n 01 sun 0 002 @i 00000001 n 0000 ~ 00000010 n 0000 | a star
00000030 03 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 002 @ 00000010 n 0000 @ 00000020 n 0000 | ten names
"""


def made_up(edges: dict[str, str], seen: tuple[str, ...] = ("a",)) -> Hierarchy:
    """Classes and ancestors of one letter, each with the letters above it."""
    return Hierarchy(
        seen=seen,
        unseen=tuple(w for w in edges if w not in seen and w.islower()),
        hypernyms={w: tuple(above) for w, above in edges.items()},
        lemmas={w: (w,) for w in edges},
        glosses=dict.fromkeys(edges, ""),
    )


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return wordnet.load()


def test_the_table_holds_the_classes_of_imagenet(hierarchy):
    assert (len(hierarchy.seen), len(hierarchy.unseen)) == (1000, 20842)
    assert len(set(hierarchy.classes)) == 21842
    assert list(hierarchy.seen) == sorted(hierarchy.seen)
    assert hierarchy.lemmas["n02084071"] == ("dog", "domestic dog", "Canis familiaris")
    assert hierarchy.text("n01440764").startswith("tench, Tinca tinca: freshwater dace-like")
    assert not any(
        '"' in hierarchy.glosses[w] and hierarchy.glosses[w].endswith('"') for w in hierarchy.seen[:50]
    )


def test_timm_lists_the_same_classes(hierarchy):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    seen, classes = build.imagenet_lists()
    assert tuple(seen) == hierarchy.seen
    assert set(classes) == set(hierarchy.classes)


def test_all_but_instances_descend_from_entity(hierarchy):
    lost = [w for w in hierarchy.classes if "n00001740" not in hierarchy.ancestors(w)]
    assert {hierarchy.name(w) for w in lost} == {"sun", "Genet", "Munro", "Stoker"}


def test_distances_are_networkx_s(hierarchy):
    graph = networkx.Graph([(w, above) for w, row in hierarchy.hypernyms.items() for above in row])
    sources = [*hierarchy.seen[:7], "n00015388"]
    expected = networkx.multi_source_dijkstra_path_length(graph, set(sources), weight=None)
    assert hierarchy.distances(sources) == expected
    assert hierarchy.distances(sources, 3) == {w: d for w, d in expected.items() if d <= 3}


def test_hops_by_hand():
    h = made_up({"a": "P", "b": "P", "c": "a", "d": "c", "e": "Q", "P": "Q", "Q": "", "f": ""})
    assert hop_sets(h) == {"2-hops": ("c",), "3-hops": ("b", "c", "d"), "all": ("b", "c", "d", "e", "f")}
    assert hop_sets(h, seen=["f"])["3-hops"] == ()
    assert hop_sets(h, seen=["b"], candidates=["a", "b", "e"])["all"] == ("a", "e")
    assert hop_sets(h, seen=["d"])["2-hops"] == ("c",)


def test_hop_sets_of_the_whole_hierarchy(hierarchy):
    plain, tree = hop_sets(hierarchy), hop_sets(imagenet_tree(hierarchy))
    assert {name: len(s) for name, s in plain.items()} == {"2-hops": 1548, "3-hops": 5989, "all": 20842}
    assert {name: len(s) for name, s in tree.items()} == {"2-hops": 1549, "3-hops": 7867, "all": 20842}
    assert set(tree["2-hops"]) < set(tree["3-hops"]) < set(tree["all"])


@pytest.mark.data
def test_the_published_sets_come_out_but_for_seven_classes(hierarchy, real: Callable[[str], Path]):
    published = published_sets(real("imagenet") / "imagenet-testsets.json")
    found = hop_sets(imagenet_tree(hierarchy))
    assert published["seen"] == hierarchy.seen
    assert {name: len(published[name]) for name in wordnet.HOPS} == {
        "2-hops": 1549,
        "3-hops": 7860,
        "all": 20842,
    }
    assert set(found["2-hops"]) == set(published["2-hops"])
    assert set(found["all"]) == set(published["all"])
    assert not set(published["3-hops"]) - set(found["3-hops"])
    assert len(set(found["3-hops"]) - set(published["3-hops"])) == 7


@pytest.mark.data
def test_what_each_change_of_the_tree_explains(hierarchy, real: Callable[[str], Path]):
    published = published_sets(real("imagenet") / "imagenet-testsets.json")
    plain, tree = hop_sets(hierarchy), imagenet_tree(hierarchy)
    assert set(published["2-hops"]) - set(plain["2-hops"]) == {wordnet.ANIMAL}
    misc = {w for w in hierarchy.classes if wordnet.MISC in tree.hypernyms[w]}
    assert misc <= {*published["3-hops"], *hierarchy.seen}
    rest = set(published["3-hops"]) - set(plain["3-hops"]) - misc - {wordnet.ANIMAL}
    assert rest
    assert all(wordnet.ANIMAL in hierarchy.hypernyms[w] for w in rest)


def test_unknown_sources_and_limits():
    h = made_up({"a": "", "b": "a"})
    with pytest.raises(DataError, match="synsets: found 1 that are not in the table"):
        h.distances(["a", "x"])
    with pytest.raises(DataError, match="distances: limit: found -1, expected 0 or more"):
        h.distances(["a"], -1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: found nothing"),
        (b"no gzip", "found no table"),
        (gzip.compress(b"\xff\xfe", mtime=0), "found no table"),
        (gzip.compress(b"wnid\tkind\n", mtime=0), "line 1: found"),
        (gzip.compress(f"{HEADER}\nn1\tseen\n".encode(), mtime=0), "line 2: found"),
        (gzip.compress(f"{HEADER}\nn1\tother\t\ta\tb\n".encode(), mtime=0), "line 2: found"),
        (
            gzip.compress(f"{HEADER}\nn1\tseen\tn2\ta\tb\n".encode(), mtime=0),
            "hypernyms: found 1 without a line",
        ),
    ],
)
def test_a_damaged_table_is_named(content, message, tmp_path):
    path = tmp_path / "synsets.tsv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        wordnet.load(path)
    assert "synsets.tsv.gz" in str(caught.value)


def test_a_truncated_table_is_named(tmp_path):
    path = tmp_path / "synsets.tsv.gz"
    path.write_bytes(wordnet.TABLE.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"synsets\.tsv\.gz: found no table"):
        wordnet.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "found no JSON"),
        ("[]", "train: found no list of synsets"),
        ('{"train": ["n1"], "2-hops": [3]}', "2-hops: found no list of synsets"),
        ('{"train": ["dog"]}', "train: found no list of synsets"),
    ],
)
def test_published_sets_that_cannot_be_used(content, message, tmp_path):
    path = tmp_path / "sets.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        published_sets(path)
    with pytest.raises(DataError, match="found no JSON"):
        published_sets(tmp_path / "none.json")


def test_published_sets_are_read(tmp_path):
    path = tmp_path / "sets.json"
    path.write_text(
        json.dumps({"train": ["n1"], "2-hops": ["n2"], "3-hops": ["n2", "n3"], "all": ["n2"], "x": 1})
    )
    assert published_sets(path) == {
        "seen": ("n1",),
        "2-hops": ("n2",),
        "3-hops": ("n2", "n3"),
        "all": ("n2",),
    }


def test_lines_of_wordnet_are_read(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    nouns = build.read_nouns(path)
    assert nouns["n00000010"] == (("hot dog", "frank"), ("n00000001",), "food; with a bun")
    assert nouns["n00000020"].hypernyms == ()  # an instance is no kind
    assert nouns["n00000030"].lemmas == tuple("abcdefghij")
    assert nouns["n00000030"].hypernyms == ("n00000010", "n00000020")


def test_the_table_that_is_made_is_read_again(tmp_path):
    source, made = tmp_path / "data.noun", tmp_path / "synsets.tsv.gz"
    source.write_text(NOUNS)
    text = build.table(build.read_nouns(source), ["n00000030"], ["n00000030", "n00000020"])
    made.write_bytes(gzip.compress(text.encode()))
    h = wordnet.load(made)
    assert (h.seen, h.unseen) == (("n00000030",), ("n00000020",))
    assert h.ancestors("n00000030") == {"n00000010", "n00000020", "n00000001"}
    with pytest.raises(DataError, match=r"data\.noun: found no n9, expected WordNet 3\.0"):
        build.table(build.read_nouns(source), [], ["n9"])
    nouns = build.read_nouns(source)
    nouns["n00000020"] = nouns["n00000020"]._replace(gloss="a\tb")
    with pytest.raises(DataError, match=r"data\.noun: n00000020: found a tab or a bar"):
        build.table(nouns, [], ["n00000020"])
