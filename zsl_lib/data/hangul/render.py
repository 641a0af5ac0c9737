"""Remake the image archive and the index sets of *hangul* from Debian's fonts.

    python -m zsl_lib.data.hangul.render

The same Pillow and FreeType give the same pixels: every image draws its distortion from a generator
seeded by (seed, syllable, typeface), so that it depends on nothing else. Written are ``images.npz``,
``splits.npz`` and their lines of ``SHA256SUMS``; the backbone and the features come after
(``python -m zsl_lib.learn.backbone``).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from zsl_lib.data.hangul.files import HERE, write_archive
from zsl_lib.data.hangul.syllables import choose_classes
from zsl_lib.errors import DataError

SIZE = 32  # pixels, side of an image
OVERSAMPLING = 6
INK = 23.0  # pixels, mean height of a typeface's syllables
GREYS = 16  # grey levels kept, for an archive of a few MB
FONT_ROOTS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")


@dataclass(frozen=True)
class Setting:
    """How hard the data are; chosen on validation only (see README.md).

    n_train, n_val, n_unseen: numbers of classes; the first two are seen.
    strength: 0 (none) upwards, the distortion as a share of the ranges in :func:`draw_distortion`.
    """

    n_train: int = 55
    n_val: int = 40
    n_unseen: int = 80
    strength: float = 0.6
    seed: int = 0


@dataclass(frozen=True)
class Face:
    """One row of ``fonts.csv``."""

    file: str
    face: int
    typeface: str
    family: str
    split: str
    package: str


def read_faces(path: Path = HERE / "fonts.csv") -> list[Face]:
    """All typefaces of the table, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Face(r["file"], int(r["face"]), r["typeface"], r["family"], r["split"], r["package"])
            for r in csv.DictReader(file)
        ]


def locate(faces: Iterable[Face]) -> dict[str, Path]:
    """File name -> path of every font that the faces need.

    Raises :class:`DataError` with the Debian packages to install if one is missing.
    """
    suffixes = {".ttf", ".ttc", ".otf"}
    roots = (root for root in FONT_ROOTS if root.is_dir())
    installed = {p.name: p for root in roots for p in sorted(root.rglob("*")) if p.suffix.lower() in suffixes}
    missing = [f for f in faces if f.file not in installed]
    if missing:
        packages = " ".join(sorted({f.package for f in missing}))
        raise DataError(
            missing[0].file,
            found=f"{len({f.file for f in missing})} fonts missing",
            expected="the fonts of fonts.csv installed",
            hint=f"sudo apt-get install {packages}",
        )
    return {f.file: installed[f.file] for f in faces}


@cache
def _font(path: str, face: int, sample: str) -> ImageFont.FreeTypeFont:
    """The face at the size that makes the syllables of ``sample`` ``INK`` pixels high on average."""
    goal = INK * OVERSAMPLING
    trial = ImageFont.truetype(path, int(goal), index=face, layout_engine=ImageFont.Layout.BASIC)
    boxes = [trial.getbbox(s) for s in sample]
    if min(b[3] - b[1] for b in boxes) <= 0:
        raise DataError(Path(path).name, found="an empty glyph", expected="ink for every syllable")
    height = float(np.mean([b[3] - b[1] for b in boxes]))
    return trial.font_variant(size=round(int(goal) * goal / height))


def draw_distortion(rng: np.random.Generator, strength: float) -> dict[str, float]:
    """One image's distortion; at ``strength`` 1 the ranges are those written here.

    rotation in degrees; shear in pixels per pixel; shift_x and shift_y in pixels; scale and contrast as
    factors (contrast is the grey of full ink over 255); blur, a Gaussian's radius in pixels.
    """
    u = (rng.uniform(-1.0, 1.0, size=7) * strength).tolist()
    return {
        "rotation": 12.0 * u[0],
        "shear": 0.25 * u[1],
        "shift_x": 2.5 * u[2],
        "shift_y": 2.5 * u[3],
        "scale": math.exp(0.2 * u[4]),
        "contrast": 1.0 - 0.5 * abs(u[5]),
        "blur": 1.0 * abs(u[6]),
    }


def _inverse_affine(d: dict[str, float], side: int) -> tuple[float, ...]:
    """Pillow's six numbers: where an output pixel comes from in the undistorted drawing."""
    angle = math.radians(d["rotation"])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = d["scale"] * turn @ np.array([[1.0, d["shear"]], [0.0, 1.0]])
    inverse = np.linalg.inv(forward)
    centre = np.full(2, side / 2)
    shift = np.array([d["shift_x"], d["shift_y"]]) * OVERSAMPLING
    offset = centre - inverse @ (centre + shift)
    return (*inverse[0], offset[0], *inverse[1], offset[1])


def render(syllable: str, font: ImageFont.FreeTypeFont, distortion: dict[str, float]) -> np.ndarray:
    """One image, uint8 ``[32, 32]``: light ink (255 x contrast) on a ground of 0."""
    side = SIZE * OVERSAMPLING
    canvas = Image.new("L", (side, side), 0)
    left, top, right, bottom = font.getbbox(syllable)
    at = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(at, syllable, font=font, fill=255)
    coefficients = _inverse_affine(distortion, side)
    turned = canvas.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    small = turned.reduce(OVERSAMPLING).filter(ImageFilter.GaussianBlur(distortion["blur"]))
    grey = np.asarray(small, np.float64) / 255 * distortion["contrast"] * (GREYS - 1)
    return (np.rint(grey) * (255 // (GREYS - 1))).astype(np.uint8)


def render_one(
    syllable: str, face: Face, path: Path, sample: str, setting: Setting
) -> tuple[np.ndarray, dict[str, float]]:
    """The archive's image of a syllable in a typeface, and its distortion."""
    key = [setting.seed, ord(syllable), *face.typeface.encode()]
    distortion = draw_distortion(np.random.default_rng(key), setting.strength)
    return render(syllable, _font(str(path), face.face, sample), distortion), distortion


def build(setting: Setting) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Contents of ``images.npz`` and ``splits.npz``: arrays by name.

    Seen classes are rendered in all typefaces, unseen classes in the test typefaces only: an unseen
    class in a training typeface would belong to no index set.
    """
    groups = choose_classes(setting.n_train, setting.n_val, setting.n_unseen, seed=setting.seed)
    group = {s: g for g, members in groups.items() for s in members}
    names = sorted(group)
    faces = read_faces()
    where = locate(faces)
    pairs = [
        (c, f) for c in range(len(names)) for f in range(len(faces)) if _is_used(group[names[c]], faces[f])
    ]
    sample = "".join(names)
    made = [render_one(names[c], faces[f], where[faces[f].file], sample, setting) for c, f in pairs]
    labels, font = np.array(pairs, np.int64).T
    arrays = {
        "images": np.stack([image for image, _ in made]),
        "labels": labels.astype(np.uint8 if len(names) < 256 else np.int64),
        "class_names": np.array(names),
        "font": font.astype(np.uint8),
        "typefaces": np.array([f.typeface for f in faces]),
        "families": np.array([f.family for f in faces]),
        "freetype": np.array(features.version("freetype2")),
    }
    for key in made[0][1]:
        arrays[key] = np.array([d[key] for _, d in made], np.float32)
    classes = np.array([group[names[c]] for c, _ in pairs])
    fonts = np.array([faces[f].split for _, f in pairs])
    return arrays, index_sets(classes, fonts)


def _is_used(group: str, face: Face) -> bool:
    """Whether images of a class of this group in this typeface belong to an index set."""
    return group != "unseen" or face.split == "test"


def index_sets(classes: np.ndarray, fonts: np.ndarray) -> dict[str, np.ndarray]:
    """Index sets from each image's class group (train, val, unseen) and typeface split."""
    seen, test = classes != "unseen", fonts == "test"
    sets = {
        "trainval": seen & ~test,
        "test_seen": seen & test,
        "test_unseen": ~seen & test,
        "train": (classes == "train") & (fonts == "train"),
        "val": (classes == "val") & (fonts == "val"),
    }
    return {key: np.flatnonzero(mask).astype(np.int32) for key, mask in sets.items()}


def main() -> None:
    """Write the archives beside this file."""
    arrays, splits = build(Setting())
    write_archive(HERE / "images.npz", arrays)
    write_archive(HERE / "splits.npz", splits)
    print(f"{len(arrays['labels'])} images;", {key: len(index) for key, index in splits.items()})


if __name__ == "__main__":
    main()
