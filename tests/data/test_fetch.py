"""Fetching, against a small server on this machine: whole or absent, whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import signal
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import scipy.io
import torch
from server import Shelf, serving

from zsl_lib.data import download as downloading
from zsl_lib.data import fetch as fetching
from zsl_lib.data import load
from zsl_lib.data.__main__ import main
from zsl_lib.data.fetch import check, fetch, split_digest
from zsl_lib.data.published import SIZES, SOURCES, SPLITS, Size
from zsl_lib.data.xlsa17 import sha256
from zsl_lib.errors import DataError

PAGE = Path(__file__).parents[2] / "book" / "data.md"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A server; tries follow each other at once, and a silence of 0.2 s is one too long."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(downloading, "TIMEOUT", 0.2)
    monkeypatch.setattr(downloading, "CHUNK", 1024)
    with serving() as shelf:
        yield shelf


def archive_of(world, *names: str) -> bytes:
    """``xlsa17.zip`` with the world as each of ``names``."""
    world.write()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            for path in (world.data_path, world.split_path):
                archive.write(path, f"xlsa17/data/{name}/{path.name}")
    return file.getvalue()


def offer(monkeypatch, shelf: Shelf, name: str, file: str, **fields: object) -> None:
    source = replace(SOURCES[name], url=f"{shelf.address}/{file}", **{"known_hash": None, **fields})
    monkeypatch.setitem(SOURCES, name, source)


@pytest.fixture
def published(shelf: Shelf, world, monkeypatch) -> Shelf:
    """The world as CUB and SUN, with its own sizes and digests; AWA2 is said to be in the same file."""
    shelf.files["/xlsa17.zip"] = archive_of(world, "CUB", "SUN")
    known = load("CUB", world.folder.parent)
    monkeypatch.setattr(fetching, "FEATURES", 7)
    for name in ("CUB", "SUN", "AWA2"):
        offer(monkeypatch, shelf, name, "xlsa17.zip")
        monkeypatch.setitem(SIZES, name, Size(60, 6, 4, 2, 4, 32, 8, 20))
        monkeypatch.setitem(SPLITS, name, (known.digests["split"], split_digest(known)))
    return shelf


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def leftovers(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.name.startswith(".") or ".part" in p.name)


# --- what a fetch does --------------------------------------------------------------------------------


def test_fetched_whole_with_its_terms_beside(published, root, capsys):
    folder = fetch("CUB", root)
    assert folder == root / "xlsa17/data/CUB"
    digest = hashlib.sha256(published.files["/xlsa17.zip"]).hexdigest()
    assert (root / "xlsa17.zip.sha256").read_text() == f"{digest}  xlsa17.zip\n"
    assert f"no published checksum; trusted on first use, SHA-256 {digest}" in capsys.readouterr().out
    about = (folder / "SOURCE.txt").read_text()
    for part in (f"{published.address}/xlsa17.zip", digest, "Licence: The archive names", "Wah", "Xian"):
        assert part in about
    assert len(load("CUB", root)) == 60
    assert leftovers(root) == []


def test_second_name_of_one_archive_and_second_fetch_need_no_server(published, root):
    fetch("CUB", root)
    published.requests.clear()
    published.files.clear()
    assert fetch("SUN", root).is_dir()
    assert fetch("CUB", root).is_dir()
    assert published.requests == []


def test_what_is_there_is_never_touched(published, root):
    mine = root / "CUB"
    mine.mkdir(parents=True)
    (mine / "att_splits.mat").write_text("mine")
    assert fetch("CUB", root) == mine
    assert [p.name for p in mine.iterdir()] == ["att_splits.mat"]
    with pytest.raises(DataError, match=r"CUB/res101.mat: found no feature file"):
        check("CUB", root)


def test_weights_go_where_torch_looks_or_where_you_say(shelf, monkeypatch, tmp_path, capsys):
    weights = b"weights" * 999
    shelf.files["/resnet34-b627a593.pth"] = weights
    known = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    offer(monkeypatch, shelf, "resnet34", "resnet34-b627a593.pth", known_hash=known)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    path = fetch("resnet34")
    assert path == tmp_path / "hub/checkpoints/resnet34-b627a593.pth"
    assert path.read_bytes() == weights
    assert "BSD-3-Clause" in path.with_name(f"{path.name}.SOURCE.txt").read_text()
    assert main(["fetch", "resnet34", "--root", str(tmp_path / "mine")]) == 0
    assert f"{known}, as published" in capsys.readouterr().out
    (tmp_path / "mine/resnet34-b627a593.pth").write_bytes(b"others")
    with pytest.raises(DataError, match=r"b627a593.pth: found sha256:.*, expected sha256:.*move it away"):
        check("resnet34", tmp_path / "mine")


# --- a bad line ---------------------------------------------------------------------------------------


@pytest.fixture
def target(shelf: Shelf, tmp_path: Path) -> Path:
    shelf.files["/file"] = np.random.default_rng(0).bytes(100_000)
    return tmp_path / "file"


def get(shelf: Shelf, target: Path, known_hash: str | None = None) -> bool:
    """Whether the file arrives whole; no part of it may be left over then."""
    downloading.download([f"{shelf.address}/file"], target, known_hash)
    assert not list(target.parent.glob("*.part*"))
    return target.read_bytes() == shelf.files["/file"]


def test_a_cut_line_goes_on_where_it_stopped(shelf, target):
    shelf.troubles = [0.5, 0.5]
    assert get(shelf, target)
    starts = [int(asked[6:-1]) for _, asked in shelf.requests[1:]]
    assert 48_000 < starts[0] <= 50_000  # a piece of 1,024 bytes is lost each time
    assert 73_000 < starts[1] <= 75_000


@pytest.mark.parametrize("missing", ["ranges", "tags"])
def test_where_no_part_can_be_had_it_starts_over(missing, shelf, target):
    setattr(shelf, missing, False)
    shelf.troubles = [0.5, 0.9]
    assert get(shelf, target)
    assert len(shelf.requests) == 3


def test_a_file_that_changes_meanwhile_is_not_mixed(shelf, target):
    shelf.troubles = [0.5, 404]
    with pytest.raises(DataError, match="HTTP 404"):
        get(shelf, target)
    assert 0 < target.with_name("file.part").stat().st_size < 100_000
    shelf.files["/file"] = np.random.default_rng(1).bytes(90_000)
    assert get(shelf, target)


def test_a_part_of_another_address_is_not_continued(shelf, target):
    target.with_name("file.part").write_bytes(b"x" * 100)
    target.with_name("file.part.from").write_text("https://elsewhere/file\n1\n")
    assert get(shelf, target)
    assert shelf.requests == [("/file", None)]


def test_a_part_that_is_whole_already(shelf, target):
    content = shelf.files["/file"]
    target.with_name("file.part").write_bytes(content)
    tag = f'"{hashlib.md5(content).hexdigest()}"'
    target.with_name("file.part.from").write_text(f"{shelf.address}/file\n{tag}\n")
    assert get(shelf, target)
    assert shelf.requests == [("/file", "bytes=100000-")]


def test_silence_server_errors_and_redirects(shelf, target):
    shelf.troubles = ["stall", 503, 429, "moved"]
    assert get(shelf, target)
    assert shelf.requests[-1] == ("/moved/file", "bytes=49152-")


def test_slow_is_no_error(shelf, target):
    shelf.pause = 0.01
    assert get(shelf, target)
    assert len(shelf.requests) == 1


def test_progress_starts_the_row_of_tries_again(shelf, target):
    shelf.troubles = [0.1] * 10
    assert get(shelf, target)
    shelf.troubles = [503] * 4
    with pytest.raises(DataError, match=rf"found no download .{shelf.address}/file: HTTP 503"):
        get(shelf, target)


def test_a_final_no_is_not_tried_again(shelf, target):
    shelf.troubles = [404]
    with pytest.raises(DataError, match="HTTP 404"):
        get(shelf, target)
    assert len(shelf.requests) == 1
    assert list(target.parent.glob("file*")) == []


def test_another_file_than_the_digest_says_is_not_kept(shelf, target):
    wrong = "md5:" + 32 * "0"
    with pytest.raises(DataError, match=rf"found md5:[0-9a-f]+, expected {wrong}"):
        get(shelf, target, wrong)
    assert [p.name for p in target.parent.glob("file*")] == ["file.part.from"]
    right = f"md5:{hashlib.md5(shelf.files['/file']).hexdigest()}"
    assert get(shelf, target, right)


def test_a_secure_address_may_not_lead_to_an_open_one(target):
    hook = downloading._beginning("https://secure/file", io.BytesIO(), 0)
    response = type("Response", (), {"url": "http://open/file", "headers": {}, "status_code": 200})
    with pytest.raises(DataError, match="found a way to http://open/file, expected https all along"):
        hook(response)


def test_a_full_disk(shelf, target, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading, "_transfer", full)
    with pytest.raises(DataError, match=r"file.part: found no way to write it .*No space left"):
        get(shelf, target)


# --- mirrors, seals, the steps by hand ----------------------------------------------------------------


def test_mirrors_come_first_and_the_publisher_after_them(published, root, monkeypatch):
    root.mkdir()
    mirror = f"{published.address}/mirror.zip"
    (root / "mirrors.toml").write_text(f'"xlsa17.zip" = ["{mirror}"]\n"other.zip" = ["https://x/y"]\n')
    assert fetch("CUB", root).is_dir()
    assert [path for path, _ in published.requests] == ["/mirror.zip", "/xlsa17.zip"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("xlsa17.zip = ", "mirrors.toml: found no TOML"),
        ('"xlsa17.zip" = "https://x/y"', "mirrors.toml: xlsa17.zip: found 'https://x/y', expected a list"),
        ('"xlsa17.zip" = ["ftp://x/y"]', "expected a list of http.s. addresses"),
    ],
)
def test_bad_mirrors(text, found, published, root):
    root.mkdir()
    (root / "mirrors.toml").write_text(text)
    with pytest.raises(DataError, match=found):
        fetch("CUB", root)


def test_another_file_than_at_first_use_is_refused(published, root, world):
    fetch("CUB", root)
    (root / "xlsa17.zip").unlink()
    (root / "xlsa17").rename(root / "away")
    published.files["/xlsa17.zip"] = archive_of(world, "CUB")
    with pytest.raises(DataError, match=r"expected sha256:.*; remove .*xlsa17.zip.sha256 if it is not"):
        fetch("CUB", root)
    assert not (root / "xlsa17").exists()


def test_an_archive_put_there_by_hand_is_held_to_the_seal_and_never_replaced(published, root):
    root.mkdir()
    (root / "xlsa17.zip").write_bytes(b"mine")
    (root / "xlsa17.zip.sha256").write_text(f"{64 * '0'}  xlsa17.zip\n")
    with pytest.raises(DataError, match=r"xlsa17.zip: found sha256:.*, expected sha256:000.*move it away"):
        fetch("CUB", root)
    assert (root / "xlsa17.zip").read_bytes() == b"mine"
    (root / "xlsa17.zip.sha256").write_text("oops")
    with pytest.raises(DataError, match=r"xlsa17.zip.sha256: found oops, expected a SHA-256 digest"):
        fetch("CUB", root)
    (root / "xlsa17.zip.sha256").unlink()
    (root / "xlsa17.zip").write_bytes(published.files["/xlsa17.zip"])
    assert fetch("CUB", root).is_dir()
    assert published.requests == []


@pytest.mark.parametrize("name", ["CUB", "resnet34"])
def test_without_a_network_it_gives_the_steps_by_hand(name, shelf, root, monkeypatch, capsys):
    gone = Shelf("http://127.0.0.1:9")
    offer(monkeypatch, gone, name, SOURCES[name].file)
    assert main(["fetch", name, "--root", str(root)]) == 1
    error = capsys.readouterr().err
    assert re.search(rf"{name}: found no download .*Connection refused", error)
    assert f"by hand: get http://127.0.0.1:9/{SOURCES[name].file} elsewhere, put it at {root}" in error
    assert f"`python -m zsl_lib.data check {name} --root {root}`" in error
    with pytest.raises(DataError, match=r"found nothing there, expected .*by hand: get"):
        check(name, root)


def test_unknown_name_and_archive_without_it(published, root):
    with pytest.raises(DataError, match="data set 'COB': found nothing to fetch, expected one of CUB, AWA1"):
        fetch("COB", root)
    with pytest.raises(DataError, match=r"xlsa17.zip: found no xlsa17/data/AWA2 in it"):
        fetch("AWA2", root)
    assert leftovers(root) == []


def test_two_at_once(published, root):
    root.mkdir()
    with (
        fetching._alone(root),
        pytest.raises(DataError, match="found another fetch at work, expected one at a time"),
    ):
        fetch("CUB", root)


# --- what is in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", 61, "res101.mat: images: found 60, expected 61"),
        ("classes", 7, "att_splits.mat: classes: found 6, expected 7"),
        ("unseen", 3, "att_splits.mat: unseen: found 2, expected 3"),
        ("description", 5, "att_splits.mat: description: found 4, expected 5"),
        ("test_seen", 9, "att_splits.mat: test_seen: found 8, expected 9"),
    ],
)
def test_counts(key, value, message, published, root, monkeypatch):
    monkeypatch.setitem(SIZES, "CUB", replace(SIZES["CUB"], **{key: value}))
    with pytest.raises(DataError, match=message):
        fetch("CUB", root)
    assert not (root / "xlsa17").exists()
    assert leftovers(root) == []
    assert not (root / "xlsa17.zip.sha256").exists()  # not trusted


def test_number_of_features(published, root, monkeypatch):
    monkeypatch.setattr(fetching, "FEATURES", 2048)
    with pytest.raises(DataError, match="dimensions of features: found 7, expected 2048"):
        fetch("CUB", root)


def test_a_split_saved_again_is_accepted_and_another_one_is_not(published, root, world):
    world.split["att"] = world.split["att"] * 1.0001
    published.files["/xlsa17.zip"] = archive_of(world, "CUB", "SUN")
    fetch("CUB", root)
    assert "another file than the one we know, with the same split" in check("CUB", root)
    locs = world.split
    locs["trainval_loc"][0], locs["test_seen_loc"][0] = (
        locs["test_seen_loc"][0],
        locs["trainval_loc"][0].copy(),
    )
    (root / "xlsa17.zip").write_bytes(archive_of(world, "SUN"))
    (root / "xlsa17.zip.sha256").unlink()
    with pytest.raises(DataError, match="found another split, expected the Proposed Split, by its digest"):
        fetch("SUN", root)


def test_images(published, world, root, monkeypatch, tmp_path, capsys):
    file = io.BytesIO()
    folder = world.write_images(tmp_path / "birds")
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, "CUB_200_2011")
    published.files["/CUB_200_2011.tgz"] = file.getvalue()
    offer(monkeypatch, published, "CUB-images", "CUB_200_2011.tgz")
    assert main(["fetch", "CUB-images", "--root", str(root)]) == 0
    assert "60 images in" in (out := capsys.readouterr().out)
    assert "not joined to CUB" in out
    assert "non-commercial research and education" in out
    assert main(["fetch", "CUB", "--root", str(root), "--remove-archive"]) == 0
    assert not (root / "xlsa17.zip").exists()
    assert "joined to ZSLDataset(CUB: N=60" in check("CUB-images", root)
    next((root / "CUB_200_2011/images").rglob("*.jpg")).unlink()
    with pytest.raises(DataError, match="found 1 images missing, expected 00"):
        check("CUB-images", root)


# --- the command --------------------------------------------------------------------------------------


def test_list_fetch_and_check(published, root, capsys):
    assert main(["list", "--root", str(root)]) == 0
    assert capsys.readouterr().out.count("not there") == len(SOURCES) == 9
    assert main(["check", "--root", str(root)]) == 0
    assert "nothing of `list`" in capsys.readouterr().out
    assert main(["fetch", "AWA2", "CUB", "--root", str(root)]) == 1
    out, err = capsys.readouterr()
    assert "100%" in err  # the progress bar
    assert "found no xlsa17/data/AWA2 in it" in err
    assert "ZSLDataset(CUB: N=60, D=7, K=4, 4 seen + 2 unseen classes" in out
    assert "att_splits.mat as known" in out
    assert main(["list", "--root", str(root)]) == 0
    assert str(root / "xlsa17/data/CUB") in capsys.readouterr().out
    assert main(["check", "--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith("CUB: ZSLDataset")


def test_check_reads_your_own_folders_too(world, capsys):
    world.write()
    world.folder.rename(world.folder.with_name("mine"))
    assert main(["check", "mine", "--root", str(world.folder.parent)]) == 0
    assert capsys.readouterr().out.startswith("mine: ZSLDataset(mine: N=60")
    assert main(["check", "yours", "--root", str(world.folder.parent)]) == 1


def test_stopped_by_the_keyboard(monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zsl_lib.data.__main__.fetch", stop)
    assert main(["fetch", "CUB"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


# --- killed -------------------------------------------------------------------------------------------

LINES = ("zsl_lib/", "pooch/", "zipfile", "shutil.py")


def lines_until_killed(root: Path, line: int | None) -> int:
    """Fetch in a child that SIGKILLs itself before its ``line``-th line of Python; returns the lines it ran.

    Lines of this library and of what writes files for it count. None: it is left alone.
    """
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        return int(told or 0)
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        if not any(part in frame.f_code.co_filename for part in LINES):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.settrace(trace)
    try:
        fetch("CUB", root)
        os.write(write, str(count).encode())
    finally:
        os._exit(0)


def put_away(root: Path) -> int:
    """Rename what a fetch has placed; the number of these."""
    placed = [p for p in (root / "xlsa17/data/CUB", root / "xlsa17.zip") if p.exists()]
    for path in placed:
        path.rename(root.parent / f"away-{len(list(root.parent.iterdir()))}")
    return len(placed)


def test_killed_anywhere_nothing_is_half_written_and_nothing_is_lost(published, root, capfd):
    """100 kills at random lines; each child finds what the last one left."""
    torch.set_num_threads(1)
    total = lines_until_killed(root, None)
    assert total > 1000
    whole = {p.name: p.read_bytes() for p in (root / "xlsa17/data/CUB").iterdir()}
    rng, kills, fetched = random.Random(0), 0, 0
    mine = root / "xlsa17/data/MINE/att_splits.mat"
    mine.parent.mkdir()
    mine.write_text("mine")
    while kills < 100:
        fetched += put_away(root)
        lines_until_killed(root, rng.randrange(1, total))
        kills += 1
        folder, archive = root / "xlsa17/data/CUB", root / "xlsa17.zip"
        if folder.exists():
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
        if archive.exists():
            assert archive.read_bytes() == published.files["/xlsa17.zip"]
        assert mine.read_text() == "mine"
    put_away(root)
    assert {p.name: p.read_bytes() for p in fetch("CUB", root).iterdir()} == whole
    assert [name for name in leftovers(root) if not name.startswith(".xlsa17.zip.sha256.")] == []
    with capfd.disabled():
        print(f" [{kills} kills, {fetched} files or folders placed before one] ", end="")


# --- what the page and the files at hand say ----------------------------------------------------------


def test_registry_names_every_benchmark_and_a_secure_address():
    names = {"CUB", "AWA1", "AWA2", "SUN", "APY", "FLO"}
    assert set(SIZES) == set(SPLITS) == names
    assert set(SOURCES) == names | {"CUB-images", "AWA2-images", "resnet34"}
    for source in SOURCES.values():
        assert source.url.startswith("https://")
        assert source.licence.endswith(".")
        assert source.citation.endswith(".")
    for size in SIZES.values():
        assert size.trainval + size.test_seen + size.test_unseen == size.images


def test_the_table_of_the_data_page_is_the_librarys():
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row) == 10]
    table = {row[1].strip(): [cell.strip().replace(",", "") for cell in row[2:-1]] for row in rows}
    for name, size in SIZES.items():
        s = {key: "" if value is None else str(value) for key, value in asdict(size).items()}
        seen = f"{s['seen']} / {s['unseen']}" if s["seen"] else ""
        counts = [s["trainval"], s["test_seen"], s["test_unseen"]]
        assert table[name] == [s["images"], s["classes"], seen, s["description"], *counts], name


@pytest.mark.data
@pytest.mark.parametrize("name", list(SIZES))
def test_sizes_and_digests_are_those_of_the_published_splits(name, real):
    path = real(f"splits/{name}") / "att_splits.mat"
    split, size = scipy.io.loadmat(path), SIZES[name]
    assert sha256(path) == SPLITS[name][0]
    sets = [
        np.sort(split[f"{key}_loc"].ravel().astype("<i8")) - 1
        for key in ("trainval", "test_seen", "test_unseen")
    ]
    assert hashlib.sha256(b"".join(index.tobytes() for index in sets)).hexdigest() == SPLITS[name][1]
    assert [len(index) for index in sets] == [size.trainval, size.test_seen, size.test_unseen]
    assert split["att"].shape == (size.description, size.classes)
    for kind, number in (("trainvalclasses", size.seen), ("testclasses", size.unseen)):
        names = path.parent / f"{kind}.txt"
        assert not names.exists() or len(names.read_text().split()) == number
