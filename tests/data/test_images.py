"""Images on disk: geometry, colour, damage, and agreement with a feature file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zsl_lib.data import load
from zsl_lib.data.images import ImageFiles, find_images, read_image
from zsl_lib.errors import DataError


def cells(strings) -> np.ndarray:
    out = np.empty((len(strings), 1), dtype=object)
    out[:, 0] = strings
    return out


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


# --- one image ----------------------------------------------------------------------------------------


def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path):
    array = np.zeros((20, 60, 3), np.uint8)
    array[:, :20, 0], array[:, 20:40, 1], array[:, 40:, 2] = 255, 255, 255  # red, green, blue thirds
    image = read_image(save(tmp_path / "a.png", array), 10)
    assert image.shape == (3, 10, 10)
    assert image.dtype == torch.uint8
    assert (image[1, :, 1:-1] == 255).all()  # the middle third, but for the resampled border
    assert (image[0, :, 1:-1] == 0).all()


def test_size_of_the_file_gives_its_own_pixels(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = read_image(save(tmp_path / "a.png", array), 8)
    assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(array))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_any_shape_becomes_square(tmp_path_factory, height, width, size):
    path = tmp_path_factory.getbasetemp() / "any.png"
    save(path, np.full((height, width, 3), 77, np.uint8))
    image = read_image(path, size)
    assert image.shape == (3, size, size)
    assert (image == 77).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGB"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.png" if mode == "P" else "a.jpg")
    Image.new("RGB", (9, 9), (153, 153, 153)).convert(mode).save(path)
    image = read_image(path, 9)
    assert image.shape == (3, 9, 9)
    assert (image.int() - 153).abs().max() <= 3


def test_missing_and_damaged_files_are_named(tmp_path):
    whole = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    cut, text, empty = tmp_path / "cut.jpg", tmp_path / "text.jpg", tmp_path / "empty.jpg"
    cut.write_bytes(whole.read_bytes()[:900])
    text.write_text("404 not found")
    empty.write_bytes(b"")
    for path in (cut, text, empty):
        with pytest.raises(DataError, match=f"{path.name}: found a damaged image .*expected an image"):
            read_image(path, 8)
    with pytest.raises(DataError, match=r"no.jpg: found no such file, expected an image"):
        read_image(tmp_path / "no.jpg", 8)


# --- many ---------------------------------------------------------------------------------------------


def test_image_files_are_indexed_like_a_tensor(tmp_path):
    paths = [save(tmp_path / f"{i}.png", np.full((4, 4, 3), i, np.uint8)) for i in range(5)]
    files = ImageFiles(paths, 4)
    assert len(files) == 5
    batch = files[torch.tensor([4, 0, 0])]
    assert batch.shape == (3, 3, 4, 4)
    assert batch.dtype == torch.uint8
    assert batch[:, 0, 0, 0].tolist() == [4, 0, 0]
    assert files[torch.tensor(2)].shape == (3, 4, 4)
    assert files[torch.tensor([], dtype=torch.int64)].shape == (0, 3, 4, 4)
    with pytest.raises(IndexError):
        files[torch.tensor([5])]
    with pytest.raises(DataError, match="image size: found 0, expected at least one pixel"):
        ImageFiles(paths, 0)


def test_load_matches_images_by_name_not_by_order(world):
    world.write_images()
    shuffled = np.random.default_rng(1).permutation(10)  # within the first class
    names = world.data["image_files"].ravel().tolist()
    world.data["image_files"] = cells([names[i] for i in shuffled] + names[10:])
    world.write()
    d = load("CUB", world.folder.parent, images=True, image_size=8)
    assert len(d.images) == 60
    red = d.images[torch.arange(10)][:, 0].float().mean((1, 2))
    assert (red - torch.from_numpy(shuffled)).abs().max() < 3  # the red value is the file's number


@pytest.mark.parametrize("place", ["CUB_200_2011", "CUB/CUB_200_2011"])
def test_images_are_found_beside_and_below(world, place):
    world.write()
    world.write_images(world.folder.parent / place)
    assert load("CUB", world.folder.parent, images=True).images[torch.tensor([7])].shape == (1, 3, 224, 224)


def test_images_are_found_beside_xlsa17(world, tmp_path):
    world.write()
    world.write_images(tmp_path / "root" / "CUB_200_2011")
    target = tmp_path / "root" / "xlsa17" / "data" / "CUB"
    target.parent.mkdir(parents=True)
    world.folder.rename(target)
    assert len(load("CUB", tmp_path / "root", images=True).images) == 60


def test_awa2_layout(world, tmp_path):
    world.write()
    world.write_images()
    folder = tmp_path / "AWA2"
    world.folder.rename(folder)
    (folder / "images.txt").unlink()
    (folder / "images").rename(folder / "JPEGImages")
    assert len(load("AWA2", tmp_path, images=True).images) == 60


def _message(world) -> str:
    world.write()
    with pytest.raises(DataError) as caught:
        load("CUB", world.folder.parent, images=True)
    return str(caught.value)


def test_no_images_anywhere(world):
    text = _message(world)
    assert "CUB: images: found neither images.txt nor JPEGImages/ in " in text
    assert "expected images in the layout of CUB-200-2011 or AwA2" in text
    assert "fetch CUB-images" in text


def test_names_disagree(world):
    world.write_images()
    names = world.data["image_files"].ravel().tolist()
    world.data["image_files"] = cells(["/elsewhere/001.Auk/other.jpg", *names[1:]])
    text = _message(world)
    assert "res101.mat: image_files: found 60 names, 1 of them not in" in text
    assert "(e.g. 001.Auk/other.jpg), expected the 60 names of" in text
    assert "images.txt" in text


def test_counts_disagree(world):
    world.write_images()
    for file in ("images.txt", "image_class_labels.txt"):
        lines = (world.folder / file).read_text().splitlines()
        (world.folder / file).write_text("\n".join(lines[:-1]))
    text = _message(world)
    assert "image_files: found 60 names, 1 of them not in" in text
    assert "expected the 59 names of" in text


def test_more_images_than_features(world):
    world.write_images()
    (world.folder / "images.txt").write_text(
        (world.folder / "images.txt").read_text() + "61 001.Auk/extra.jpg\n"
    )
    (world.folder / "image_class_labels.txt").write_text(
        (world.folder / "image_class_labels.txt").read_text() + "61 1\n"
    )
    assert "0 of them not in" in _message(world)
    assert "expected the 61 names of" in _message(world)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda names: names[:-1], "image_files: found 59 names, expected 60, one a label"),
        (lambda names: [names[1], *names[1:]], "image_files: found 1 repeated names, expected each once"),
        (
            lambda names: names[10:] + names[:10],
            "labels: found 60 images in another class's folder, e.g. 002.Bee_eater, expected 001.Auk, by its",
        ),
    ],
)
def test_image_files_do_not_fit(world, change, text):
    world.write_images()
    world.data["image_files"] = cells(change(world.data["image_files"].ravel().tolist()))
    assert f"res101.mat: {text}" in _message(world)


def test_no_image_files_key(world):
    world.write_images()
    del world.data["image_files"]
    assert "res101.mat: image_files: found no such key" in _message(world)


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("images.txt", "", "images.txt: found an empty file, expected one line an entry"),
        ("images.txt", "one two\n", "images.txt: line 1: found 'one two', expected a new number and a text"),
        ("images.txt", "1 a/b.jpg\n1 a/c.jpg\n", "images.txt: line 2: found '1 a/c.jpg'"),
        ("classes.txt", None, "classes.txt: found no such file, expected a list of CUB-200-2011's layout"),
        (
            "classes.txt",
            "1 001.Auk\n",
            "found class 2 (not in classes.txt) for image 11, expected the class of",
        ),
        (
            "image_class_labels.txt",
            "1 1\n",
            "found 1 ids, 59 of them in one list only (e.g. 2), expected the 60",
        ),
    ],
)
def test_damaged_lists(world, file, content, text):
    path = world.write_images() / file
    path.unlink() if content is None else path.write_text(content)
    assert text in _message(world)


def test_missing_jpeg_is_named_when_it_is_read(world):
    world.write_images()
    (world.folder / "images" / world.files[3]).unlink()
    world.write()
    images = load("CUB", world.folder.parent, images=True).images
    images[torch.arange(3)]
    with pytest.raises(DataError, match=r"001.Auk/0003.jpg: found no such file"):
        images[torch.arange(5)]


@pytest.mark.data
def test_cub100_images(real):
    folder = real("CUB100")
    assert len(find_images(folder).names) == 5902
    d = load("CUB100", folder.parent, images=True)
    x = d.images[torch.tensor([0, 3000, 5901])]
    assert x.shape == (3, 3, 224, 224)
    assert x.float().std() > 20
