"""How alike the typefaces are: the check behind ``family`` and ``split`` in ``fonts.csv``.

    python -m zsl_lib.data.hangul.similarity

Twenty-four syllables of each typeface are cropped to their ink, brought to one size, blurred a little and
correlated. Printed are, for each family, its nearest family and its nearest one in another split. Copies
of an outline under another name reach 1.00 (NanumGothicCoding and NanumGothic, D2Coding and
NanumBarunGothic: the copies are left out).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from zsl_lib.data.hangul.render import locate, read_faces
from zsl_lib.data.hangul.syllables import common_syllables

SIDE, CANVAS, POINTS = 48, 192, 120  # pixels


def glyph(font: ImageFont.FreeTypeFont, syllable: str) -> np.ndarray:
    """The ink of one syllable at a fixed size, float64 ``[48 * 48]``, mean 0 and length 1."""
    canvas = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), syllable, font=font, fill=255, anchor="mm")
    ink = canvas.crop(canvas.getbbox()).resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(ink.filter(ImageFilter.GaussianBlur(1)), np.float64).ravel()
    pixels = pixels - pixels.mean()
    return pixels / np.linalg.norm(pixels)


def similarities(fonts: list[tuple[Path, int]], n_syllables: int = 24) -> np.ndarray:
    """Mean correlation of the same syllables, ``[F, F]``, of fonts given as (path, face)."""
    sample = np.random.default_rng(0).choice(common_syllables(), n_syllables, replace=False)
    loaded = (ImageFont.truetype(str(path), POINTS, index=face) for path, face in fonts)
    glyphs = np.stack([[glyph(font, s) for s in sample] for font in loaded])
    return np.einsum("ask,bsk->ab", glyphs, glyphs) / n_syllables


def main() -> None:
    """Print the nearest neighbours of each family."""
    faces = read_faces()
    where = locate(faces)
    alike = similarities([(where[f.file], f.face) for f in faces])
    family = np.array([f.family for f in faces])
    split = np.array([f.split for f in faces])
    for name in dict.fromkeys(family):
        mine = family == name
        line = f"{split[mine][0]:5s} {name:20s}"
        for label, others in (("nearest", ~mine), ("other split", split != split[mine][0])):
            block = alike[np.ix_(mine, others)]
            column = block.max(axis=0).argmax()
            line += f"  {label} {block.max():.2f} {faces[np.flatnonzero(others)[column]].typeface:24s}"
        print(line)


if __name__ == "__main__":
    main()
