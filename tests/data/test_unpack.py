"""Archives that are good, damaged and hostile."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from zsl_lib.data import unpack as unpacking
from zsl_lib.data.unpack import unpack
from zsl_lib.errors import DataError

GOOD = {"set/data/a.txt": b"a" * 5000, "set/data/deep/b.txt": b"b", "set/code/c.txt": b"c", "readme": b"r"}


def zipped(path: Path, members: dict[str, bytes], *, mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tarred(path: Path, members: dict[str, bytes], **fields: object) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive: Path) -> str:
    """The message; nothing may be outside ``new``."""
    root = archive.parent
    before = {p for p in root.parent.rglob("*") if root / "new" not in p.parents}
    with pytest.raises(DataError) as caught:
        unpack(archive, "set/data", root / "new")
    assert {p for p in root.parent.rglob("*") if root / "new" not in p.parents} <= before | {root / "new"}
    assert str(archive) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_the_wanted_folder_and_nothing_else(make, tmp_path):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tgz"), GOOD)
    unpack(archive, "set/data", tmp_path / "new")
    assert files(tmp_path / "new") == {"a.txt": b"a" * 5000, "deep/b.txt": b"b"}
    with pytest.raises(FileExistsError):
        unpack(archive, "set/data", tmp_path / "new")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_without_the_folder_it_says_what_is_in_it(make, tmp_path):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tgz"), {"other/x": b"1", "readme": b"2"})
    assert "found no set/data in it, expected the data set (it holds other, readme)" in refused(archive)


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "set/data/../../../evil",
        "/evil",
        "C:/evil",
        "C:evil",
        "set\\..\\..\\evil",
        "set/data/\x1b[2J",
    ],
)
def test_names_that_lead_out(make, name, tmp_path):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tgz"), {**GOOD, name: b"evil"})
    assert ("control characters" if "\x1b" in name else "a path that may lead out") in refused(archive)


def test_a_name_of_a_zip_that_hides_behind_a_zero_byte(tmp_path):
    archive = zipped(tmp_path / "a.zip", {**GOOD, "set/data/x0y": b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"x0y", b"x\0y"))
    assert "control characters" in refused(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_of_links_and_devices(kind, tmp_path):
    archive = zipped(tmp_path / "a.zip", {"set/data/passwd": b"/etc/passwd"}, mode=kind | 0o777)
    assert "found a link or a device, expected a file or a folder" in refused(archive)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_tar_of_links_and_devices(kind, tmp_path):
    archive = tarred(tmp_path / "a.tgz", {"set/data/passwd": b""}, type=kind, linkname="/etc/passwd")
    assert "found a link or a device" in refused(archive)


def test_link_followed_by_a_file_behind_it(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        link = tarfile.TarInfo("set/data/out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path.parent)
        tar.addfile(link)
        info = tarfile.TarInfo("set/data/out/evil")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    assert "a link or a device" in refused(tmp_path / "a.tgz")


def test_one_name_twice_and_a_file_in_the_way_of_a_folder(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        for content in (b"1", b"2"):
            info = tarfile.TarInfo("set/data/a")
            info.size = 1
            tar.addfile(info, io.BytesIO(content))
    assert "found the name twice, expected once" in refused(tmp_path / "a.tgz")
    (tmp_path / "new" / "a").unlink()
    (tmp_path / "new").rmdir()
    archive = zipped(tmp_path / "a.zip", {"set/data/a": b"1", "set/data/a/b": b"2"})
    assert "found what cannot be written" in refused(archive)


def test_encrypted_member(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"set/data/a": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    archive.write_bytes(bytes(content))
    assert "found an encrypted member" in refused(archive)


def test_zip_bomb(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"set/data/zeros": bytes(30 * 2**20)})
    assert archive.stat().st_size < 2**16
    assert "1 members of 31.5 MB so far, expected at most 200000 members and" in refused(archive)


def test_zip_of_members_that_are_too_big_together(tmp_path):

    archive = zipped(tmp_path / "a.zip", {f"set/other/{i:03}": bytes(2**16) for i in range(100)})
    assert "a decompression bomb?" in refused(archive)


def test_zip_that_gives_more_than_it_declares(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"set/data/zeros": bytes(10**6)})
    size, lie = (10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    assert "damaged archive" in refused(archive)
    assert (tmp_path / "new/zeros").stat().st_size <= 10


def test_tar_bomb_and_one_that_only_claims_to_be_big(tmp_path):
    archive = tarred(tmp_path / "a.tgz", {"set/data/zeros": bytes(30 * 2**20)})
    assert "a decompression bomb?" in refused(archive)
    header = tarfile.TarInfo("set/data/huge")
    header.size = 10**15
    (tmp_path / "b.tgz").write_bytes(gzip.compress(header.tobuf(format=tarfile.GNU_FORMAT)))
    (tmp_path / "new").rmdir()
    assert "a decompression bomb?" in refused(tmp_path / "b.tgz")


def test_tar_header_of_gigabytes_is_not_read(tmp_path):
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header.tobuf(format=tarfile.GNU_FORMAT)))
    assert f"a header of {2**40} bytes" in refused(tmp_path / "a.tgz")


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 3)
    assert "found 4 members of" in refused(zipped(tmp_path / "a.zip", GOOD))


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_truncated(make, share, tmp_path):
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tgz"), GOOD)
    content = archive.read_bytes()
    archive.write_bytes(content[: round(share * len(content))])
    assert "damaged archive" in refused(archive)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_changed_byte_of_the_content(make, tmp_path):
    noise = bytes(range(256)) * 8
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tgz"), {"set/data/noise": noise})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(bytes(content))
    assert "damaged archive" in refused(archive)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    assert "No space left on device" in refused(zipped(tmp_path / "a.zip", GOOD))
