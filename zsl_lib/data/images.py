"""Images that stay on disk until they are asked for.

Two layouts: CUB-200-2011 (``images.txt``, ``image_class_labels.txt``, ``classes.txt``, ``images/``) and
Animals with Attributes 2 (``JPEGImages/<class>/<file>``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsl_lib.data.text import read_lines
from zsl_lib.errors import DataError

ID = re.compile("[0-9]{1,18}")
MOST_SLENDER = 100  # sides of an image, the longer over the shorter: it is made larger until the shorter fits


class ImageFiles:
    """Image files as one array: ``files[index]`` is uint8 ``[n, 3, size, size]``, RGB.

    The shorter side is resized to ``size`` pixels (bilinear, antialiased), then the centre is cut out.
    Gray, palette and CMYK files become RGB. Nothing is kept in memory.

    Parameters
    ----------
    files: one path an image.
    size: height and width in pixels.
    """

    def __init__(self, files: Sequence[Path], size: int = 224) -> None:
        if size < 1:
            raise DataError("image size", found=size, expected="at least one pixel")
        self.files, self.size = tuple(files), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """uint8 ``[n, 3, H, W]`` for int64 ``[n]``; raises DataError naming a missing or damaged file."""
        index = torch.as_tensor(index)
        if index.ndim == 0:
            return read_image(self.files[int(index)], self.size)
        out = torch.empty(len(index), 3, self.size, self.size, dtype=torch.uint8)
        for row, i in enumerate(index.tolist()):
            out[row] = read_image(self.files[i], self.size)
        return out


def read_image(path: Path, size: int) -> Tensor:
    """uint8 ``[3, size, size]``: shorter side to ``size``, then the centre."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}", found="no such file", expected="an image") from None
    except Exception as error:  # Pillow raises a dozen types on a damaged file, and one on too many pixels
        found = f"a damaged image ({type(error).__name__}: {error})"
        raise DataError(f"{path}", found=found, expected="an image", hint="fetch it again") from error
    if max(image.size) > MOST_SLENDER * min(image.size):
        found = f"{image.size[0]} x {image.size[1]} pixels"
        raise DataError(f"{path}", found=found, expected=f"sides as 1 to {MOST_SLENDER} at most")
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class ImageFolder:
    """What a publisher's folder lists: ``names`` such as ``class/file.jpg``, relative to ``folder``.

    listing: where the names came from, for messages.
    """

    listing: Path
    folder: Path
    names: tuple[str, ...]

    def match(self, where: str, listed: Sequence[str]) -> list[Path]:
        """The file of each name in ``listed``, which may be another machine's absolute path.

        Both are compared by their tail ``class/file``.

        Raises
        ------
        DataError: a name is repeated, or the two lists do not hold the same names.
        """
        here = {_tail(name): self.folder / name for name in self.names}
        tails = [_tail(name) for name in listed]
        if len(set(tails)) != len(tails):
            raise DataError(
                where, found=f"{len(tails) - len(set(tails))} repeated names", expected="each once"
            )
        lost, spare = sorted(set(tails) - set(here)), sorted(set(here) - set(tails))
        if lost or spare:
            example = f"e.g. {(lost or spare)[0]}"
            found = f"{len(tails)} names, {len(lost)} of them not in {self.listing} ({example})"
            expected = f"the {len(here)} names of {self.listing}"
            raise DataError(where, found=found, expected=expected)
        return [here[tail] for tail in tails]


def find_images(folder: Path) -> ImageFolder:
    """The images that belong to the benchmark folder ``folder``, in it or in a folder near it.

    Looks for ``images.txt`` (CUB-200-2011) and ``JPEGImages/`` (AwA2) in ``folder``, in the publishers'
    own folder names below it, and in those beside it and beside ``xlsa17/``.

    Raises
    ------
    DataError: nothing found (lists the places), or a list that cannot be used.
    """
    own = {"CUB": "CUB_200_2011", "AWA2": "Animals_with_Attributes2"}.get(folder.name)
    places = [folder]
    if own is not None:
        places += [folder / own, folder.parent / own]
        if folder.parts[-3:-1] == ("xlsa17", "data"):
            places.append(folder.parents[2] / own)
    for place in places:
        if (place / "images.txt").is_file():
            return read_cub(place)
        if (place / "JPEGImages").is_dir():
            return _scan(place / "JPEGImages")
    raise DataError(
        f"{folder}: images",
        found=f"neither images.txt nor JPEGImages/ in {', '.join(str(p) for p in places)}",
        expected="images in the layout of CUB-200-2011 or AwA2",
        hint="python -m zsl_lib.data fetch CUB-images",
    )


def read_cub(folder: Path) -> ImageFolder:
    """The images of a CUB-200-2011 folder; its three lists must agree.

    ``images.txt``: ``<image id> <class/file>``; ``image_class_labels.txt``: ``<image id> <class id>``;
    ``classes.txt``: ``<class id> <class>``. Ids count from 1.
    """
    names, labels, classes = (
        _read_list(folder / file) for file in ("images.txt", "image_class_labels.txt", "classes.txt")
    )
    path = folder / "image_class_labels.txt"
    if names.keys() != labels.keys():
        odd = sorted(names.keys() ^ labels.keys(), key=int)
        found = f"{len(labels)} ids, {len(odd)} of them in one list only (e.g. {odd[0]})"
        raise DataError(f"{path}", found=found, expected=f"the {len(names)} ids of images.txt")
    for key, name in names.items():
        label = labels[key]
        if classes.get(label) != name.split("/")[0]:
            found = f"class {label} ({classes.get(label, 'not in classes.txt')}) for image {key}"
            raise DataError(f"{path}", found=found, expected=f"the class of {name}, by its folder")
    return ImageFolder(folder / "images.txt", folder / "images", tuple(names.values()))


def _read_list(path: Path) -> dict[str, str]:
    """``<id> <text>`` a line."""
    if not path.is_file():
        raise DataError(f"{path}", found="no such file", expected="a list of CUB-200-2011's layout")
    rows: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split(maxsplit=1)
        if len(words) != 2 or not ID.fullmatch(words[0]) or words[0] in rows:
            raise DataError(f"{path}: line {number}", found=repr(line), expected="a new number and a text")
        rows[words[0]] = words[1].strip()
    if not rows:
        raise DataError(f"{path}", found="an empty file", expected="one line an entry")
    return rows


def _scan(folder: Path) -> ImageFolder:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.glob("*/*.jpg"))
    return ImageFolder(folder, folder, tuple(names))


def _tail(name: str) -> str:
    """``class/file`` of a path, with either slash."""
    return "/".join(name.replace("\\", "/").split("/")[-2:])
