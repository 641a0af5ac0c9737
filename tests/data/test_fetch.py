"""Fetching, against a small server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zsl_lib.data import fetch as fetching
from zsl_lib.data import load
from zsl_lib.data.fetch import Archive, fetch, main
from zsl_lib.errors import DataError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def zipped(world, path: Path, *names: str) -> None:
    """``xlsa17.zip`` with the world as each of ``names``."""
    world.write()
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            for file in (world.data_path, world.split_path):
                archive.write(file, f"xlsa17/data/{name}/{file.name}")


@pytest.fixture
def archives(served, world) -> dict[str, Archive]:
    folder, address = served
    zipped(world, folder / "xlsa17.zip", "CUB", "SUN")
    return {name: Archive(f"{address}/xlsa17.zip", "xlsa17/data/{name}") for name in ("CUB", "SUN", "AWA2")}


def test_fetch_unpacks_and_seals_on_first_use(archives, served, tmp_path, capsys):
    root = tmp_path / "data"
    assert fetch("CUB", root, archives) == root / "xlsa17/data/CUB"
    digest = hashlib.sha256((served[0] / "xlsa17.zip").read_bytes()).hexdigest()
    assert (root / "xlsa17.zip.sha256").read_text() == f"{digest}  xlsa17.zip\n"
    assert f"no published checksum; trusted on first use, SHA-256 {digest}" in capsys.readouterr().out
    assert len(load("CUB", root)) == 60
    assert not list(root.glob(".unpack-*"))


def test_second_fetch_needs_no_server(archives, tmp_path):
    fetch("CUB", tmp_path / "data", archives)
    gone = {name: Archive("http://127.0.0.1:9/xlsa17.zip", "xlsa17/data/{name}") for name in archives}
    assert fetch("SUN", tmp_path / "data", gone).is_dir()


def test_another_file_than_at_first_use_is_refused(archives, served, world, tmp_path):
    root = tmp_path / "data"
    fetch("CUB", root, archives)
    (root / "xlsa17.zip").unlink()
    (root / "xlsa17").rename(root / "away")
    zipped(world, served[0] / "xlsa17.zip", "CUB")
    with pytest.raises(DataError, match="found another file than before or than published") as caught:
        fetch("CUB", root, archives)
    assert "expected sha256:" in str(caught.value)
    assert "xlsa17.zip.sha256 if the new file is right" in str(caught.value)
    assert not (root / "xlsa17").exists()


def test_damaged_seal(archives, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "xlsa17.zip.sha256").write_text("oops")
    with pytest.raises(DataError, match=r"xlsa17.zip.sha256: found oops, expected a SHA-256 digest"):
        fetch("CUB", root, archives)


def test_published_checksum(served, tmp_path):
    folder, address = served
    content = b"not the archive"
    (folder / "a.tgz").write_bytes(content)
    wrong = Archive(f"{address}/a.tgz", "a", known_hash="md5:97eceeb196236b17998738112f37df78")
    with pytest.raises(DataError, match=r"expected md5:97ece.*try again later"):
        fetch("a", tmp_path / "data", {"a": wrong})
    right = Archive(f"{address}/a.tgz", "a", known_hash=f"md5:{hashlib.md5(content).hexdigest()}")
    with pytest.raises(DataError, match=r"a.tgz: found a damaged archive .* expected a whole one"):
        fetch("a", tmp_path / "data", {"a": right})
    assert not (tmp_path / "data" / "a.tgz.sha256").exists()


def test_no_such_file_and_no_server(served, tmp_path):
    for url in (f"{served[1]}/none.zip", "http://127.0.0.1:9/none.zip"):
        with pytest.raises(DataError, match=r"found no download .*download it by other means to .*none.zip"):
            fetch("a", tmp_path / "data", {"a": Archive(url, "a")})


def test_unknown_name_and_archive_without_it(archives, tmp_path):
    with pytest.raises(DataError, match="data set 'COB': found nothing to fetch, expected one of CUB, SUN"):
        fetch("COB", tmp_path, archives)
    with pytest.raises(DataError, match=r"xlsa17.zip: found no xlsa17/data/AWA2 in it"):
        fetch("AWA2", tmp_path, archives)


def test_unpacking_adds_to_what_is_there_and_replaces_nothing(archives, tmp_path):
    mine = tmp_path / "xlsa17/data/CUB/att_splits.mat"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    fetch("SUN", tmp_path, archives)
    assert mine.read_text() == "mine"
    assert (mine.parent / "res101.mat").exists()


def test_tar_entry_outside_the_folder_is_refused(served, tmp_path):
    folder, address = served
    with tarfile.open(folder / "evil.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("../evil.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=r"evil.tgz: found a damaged archive"):
        fetch("evil", tmp_path / "data", {"evil": Archive(f"{address}/evil.tgz", "evil")})
    assert not list(tmp_path.rglob("evil.txt"))


def test_command_prints_the_data_set(archives, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetching, "ARCHIVES", archives)
    assert main(["CUB", "--root", str(tmp_path / "data"), "--remove-archive"]) == 0
    assert "ZSLDataset(CUB: N=60, D=7, K=4, 4 seen + 2 unseen classes" in capsys.readouterr().out
    assert not (tmp_path / "data" / "xlsa17.zip").exists()
    assert main(["AWA2", "--root", str(tmp_path / "data")]) == 1
    assert "found no xlsa17/data/AWA2 in it" in capsys.readouterr().err


def test_command_joins_images_to_their_benchmark(archives, served, world, tmp_path, capsys, monkeypatch):
    folder, address = served
    with tarfile.open(folder / "CUB_200_2011.tgz", "w:gz") as tar:
        tar.add(world.write_images(tmp_path / "birds"), "CUB_200_2011")
    images = Archive(f"{address}/CUB_200_2011.tgz", "CUB_200_2011", images=True)
    monkeypatch.setattr(fetching, "ARCHIVES", {**archives, "CUB-images": images})
    root = str(tmp_path / "data")
    assert main(["CUB-images", "--root", root]) == 0
    assert "60 images in" in capsys.readouterr().out
    assert main(["CUB", "--root", root]) == 0
    assert main(["CUB-images", "--root", root]) == 0
    assert "unseen=20), with images" in capsys.readouterr().out


def test_registry_names_every_benchmark_and_a_secure_address():
    assert set(fetching.ARCHIVES) == {"CUB", "AWA1", "AWA2", "SUN", "APY", "FLO", "CUB-images", "AWA2-images"}
    assert all(archive.url.startswith("https://") for archive in fetching.ARCHIVES.values())
