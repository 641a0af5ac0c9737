"""Interactive pieces: what is inside them, that it stays the same, and every bad input with its name.

Whether a browser shows what Python put in is a matter of the built site. The committed pieces are tested here
for having today's script, so that all behave as the last one looked at.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from zsl_lib import interactive
from zsl_lib.errors import DataError
from zsl_lib.files import project_root
from zsl_lib.interactive import (
    LIMIT,
    attack_slider,
    calibration_slider,
    chain_stepper,
    image_explorer,
)

TEXTS = {"title": "a title", "alt": "an alternative"}


def chain(**changes):
    """Two step sizes, three states, p(z) = N(0, I) on a grid."""
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
    z = np.array([[[1.0, 0.0], [0.5, 0.25], [0.0, 0.5]], [[1.0, 0.0], [-3.0, 2.0], [5e6, -7e6]]])
    arguments = {
        "step_sizes": [0.2, 0.5],
        "states": z,
        "gradients": -z,
        "log_prob": -(z**2).sum(2) / 2,
        "grid": (x, y, np.exp(-(x[None] ** 2 + y[:, None] ** 2) / 2)),
        "start": 0,
        **TEXTS,
    }
    return chain_stepper(**(arguments | changes))


def letters(**changes):
    """A grid of 2 × 3 images of 4 × 5 pixels."""
    ink = np.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    arguments = {
        "images": torch.from_numpy(ink),
        "axes": {"class": ["a", "b"], "z": ["−1", "0", "1"]},
        "captions": [["letter a"], ["letter b"]],
        "values": 100 * ink.mean((2, 3)),
        "start": [1, 1],
        "measure": "ink",
        "unit": " %",
        **TEXTS,
    }
    return image_explorer(**(arguments | changes))


def attack(channels=1, **changes):
    """Two images of 4 × 4, radii 0 and 8: the second image is misread at 8."""
    clean = torch.full((2, channels, 4, 4), 100.0)
    signs = torch.ones_like(clean)
    signs[..., 0] = -1
    p = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [[0.6, 0.3, 0.1], [0.7, 0.1, 0.2]]])
    arguments = {
        "images": clean,
        "radii": [0, 8],
        "attacked": {"FGSM": torch.stack([clean, clean + 8 * signs])},
        "probabilities": {"FGSM": p},
        "truth": [0, 1],
        "names": ["first", "second", "third"],
        "start": 1,
        **TEXTS,
    }
    return attack_slider(**(arguments | changes))


CURVE = pd.DataFrame(
    {
        "gamma": [-np.inf, -1.0, 0.0, 1.0, 2.0],
        "AU": [0.0, 10.0, 20.0, 40.0, 50.0],
        "AS": [80.0, 80.0, 70.0, 30.0, 0.0],
        "H": [0.0, 17.78, 31.11, 34.29, 0.0],
    }
)


def balance(**changes):
    arguments = {"curves": {"ESZSL": CURVE}, "marks": {"ESZSL": {"γ = 0": 0.0, "best": 1.2}}, **TEXTS}
    return calibration_slider(**(arguments | changes))


MAKERS = {"chain": chain, "explorer": letters, "attack": attack, "calibration": balance}
PIECES = {kind: make() for kind, make in MAKERS.items()}


class Elements(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def content(piece):
    return json.loads(Elements(piece._repr_html_()).scripts[0])


def sheet_of(data):
    png = base64.b64decode(data["sheet"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def tile_of(data, index):
    w, h = data["tile"]
    row, column = divmod(index, data["across"])
    return sheet_of(data)[row * h : (row + 1) * h, column * w : (column + 1) * w]


@pytest.mark.parametrize("kind", MAKERS)
def test_one_element_with_all_it_needs(kind):
    text = PIECES[kind]._repr_html_()
    page = Elements(text)
    assert [tag for tag, _ in page.tags] == ["div", "style", "img", "script", "script"]
    still = page.tags[2][1]
    assert still["alt"] == "an alternative"
    picture = Image.open(io.BytesIO(base64.b64decode(still["src"].removeprefix("data:image/png;base64,"))))
    assert min(picture.size) > 80
    data = json.loads(page.scripts[0])
    assert (data["kind"], data["title"]) == (kind, "a title")
    name = page.tags[0][1]["data-zsl"]
    assert f'start("{name}")' in page.scripts[1]
    assert f"function {kind}(data, panel)" in page.scripts[1]


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_is_fetched(kind):
    text = PIECES[kind]._repr_html_()
    assert re.findall(r"https?://[^\"'\s]*", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert not re.search(r"\b(fetch|import|XMLHttpRequest|eval|innerHTML)\b", text)
    assert "url(" not in text


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_arrays_give_the_same_text(kind):
    text = PIECES[kind]._repr_html_()
    assert MAKERS[kind]()._repr_html_() == text
    other = replace(PIECES[kind], title="another")._repr_html_()
    assert re.search('data-zsl="([^"]*)"', other).group(1) not in text


def test_another_machines_last_digits_change_nothing():
    states = np.array(PIECES["chain"].data["states"]) * (1 + 1e-12)
    assert chain(states=states)._repr_html_() == PIECES["chain"]._repr_html_()
    noisy = {"ESZSL": CURVE * (1 - 1e-12)}
    assert balance(curves=noisy)._repr_html_() == PIECES["calibration"]._repr_html_()


def test_plain_text_is_the_alternative():
    assert repr(PIECES["explorer"]) == "an alternative"


HOSTILE = "</script><script>alert(1)</script><!-- & \"'"


@pytest.mark.parametrize(
    "piece",
    [
        attack(names=["a", HOSTILE, "c"]),
        letters(captions=HOSTILE),
        balance(curves={HOSTILE: CURVE}, marks={HOSTILE: {HOSTILE: 0.0}}),
        chain(title=HOSTILE, alt=HOSTILE),
    ],
)
def test_names_are_no_markup(piece):
    page = Elements(piece._repr_html_())
    assert [tag for tag, _ in page.tags] == ["div", "style", "img", "script", "script"]
    assert HOSTILE in json.dumps(json.loads(page.scripts[0]), ensure_ascii=False).replace('\\"', '"')
    assert page.tags[2][1]["alt"] == piece.alt


def test_chain_has_eq_6_in_it():
    data = content(PIECES["chain"])
    assert data["sizes"] == ["0.2", "0.5"]
    assert data["states"][0] == [[1.0, 0.0], [0.5, 0.25], [0.0, 0.5]]
    assert data["states"][1][2] == [5e6, -7e6]  # what diverges is kept, in few digits
    assert data["centres"][0][0] == [0.98, 0.0]  # z + s²/2 (−z)
    assert data["centres"][1][1] == [-2.625, 1.75]
    assert data["logP"][0] == [-0.5, -0.156, -0.125]
    line = np.array(data["contours"][0])
    assert line.shape[1] == 2
    assert np.abs(line[:, 0]).max() <= 2


def test_numbers_are_short():
    assert interactive._short([1234567.89, 0.12345, -0.0001, 123.4567]) == [1235000.0, 0.123, 0.0, 123.457]


def test_explorer_tiles_are_where_the_script_looks():
    data = content(letters(greys=2))
    assert data["start"] == [1, 1]
    for a in range(2):
        for b in range(3):
            values = np.linspace(0, 1, 120).reshape(2, 3, 4, 5)[a, b]
            assert (tile_of(data, 3 * a + b) == np.where(np.rint(values) == 1, 0, 255)).all()
            assert data["captions"][data["caption"][3 * a + b]] == f"letter {'ab'[a]}"
    assert data["values"][0] == round(100 * np.linspace(0, 1, 120)[:20].mean(), 3)


def test_explorer_has_the_levels_it_was_asked_for():
    greys = np.unique(sheet_of(content(letters(greys=6))))
    assert greys.tolist() == [0, 51, 102, 153, 204, 255]


def test_attack_answers_and_tiles():
    data = content(PIECES["attack"])
    strong = data["runs"][0][1][1]
    assert strong | {"tile": 0} == {"tile": 0, "most": 8.0, "said": 0, "sure": 70.0, "right": 10.0}
    assert data["truth"] == [0, 1]
    assert (tile_of(data, 1) == 155).all()  # ink of 100 on white paper
    assert tile_of(data, strong["tile"])[0].tolist() == [163, 147, 147, 147]
    assert tile_of(data, strong["tile"] + 1)[0].tolist() == [255, 0, 0, 0]  # the signs, at full contrast
    none = data["runs"][0][0][0]
    assert none["most"] == 0
    assert (tile_of(data, none["tile"] + 1) == 127).all()  # grey: no change


def test_photographs_keep_their_colours():
    data = content(attack(channels=3))
    assert (tile_of(data, 0) == 100).all()


def test_steps_of_gamma_are_round():
    steps = [interactive._round_step(least) for least in (0.49, 0.5, 0.51, 0.0011, 7.0, 30.0)]
    assert steps == [(0.5, 1), (0.5, 1), (1.0, 0), (0.002, 3), (10.0, 0), (50.0, 0)]


def test_balance_holds_from_its_gamma_to_the_next():
    curve = content(balance(points=7))["curves"][0]
    assert curve["labels"] == ["−0.5", "0.0", "0.5", "1.0", "1.2", "1.5"]
    at = dict(zip(curve["labels"], zip(curve["AU"], curve["AS"], curve["H"], strict=True), strict=True))
    assert at["−0.5"] == (10.0, 80.0, 17.78)
    assert at["0.5"] == (20.0, 70.0, 31.11)
    assert at["1.2"] == (40.0, 30.0, 34.29)
    assert [curve["labels"][k] for _, k in curve["marks"]] == ["0.0", "1.2"]


X = np.linspace(-2, 2, 9)
BAD = [
    (chain, {"step_sizes": [0.5, 0.1]}, "step_sizes: found .*expected rising numbers above 0"),
    (chain, {"step_sizes": [0.0, 0.1]}, "step_sizes"),
    (chain, {"states": np.zeros((2, 3, 3))}, r"states: found shape \(2, 3, 3\)"),
    (chain, {"states": np.full((2, 3, 2), np.nan)}, "states: found numbers that are not finite"),
    (chain, {"gradients": np.zeros((2, 2, 2))}, "gradients: found shape"),
    (chain, {"log_prob": np.zeros((2, 2))}, "log_prob: found shape"),
    (chain, {"grid": (X, X, np.zeros((9, 8)))}, r"grid\[2\]: found shape"),
    (chain, {"grid": (X, X, -np.ones((9, 9)))}, r"grid\[2\]: found -1 to -1, expected a density"),
    (chain, {"grid": (X[::-1], X, np.ones((9, 9)))}, r"grid\[0\]: found .*rising"),
    (chain, {"start": 2}, "start: found 2, expected a position from 0 to 1"),
    (chain, {"alt": " "}, "alt: found an empty text"),
    (letters, {"images": np.zeros((2, 2, 4, 5))}, "images: found shape"),
    (letters, {"images": np.full((2, 3, 4, 5), 1.1)}, "images: found 1.1 to 1.1, expected ink from 0 to 1"),
    (letters, {"axes": {}}, "axes: found"),
    (letters, {"axes": {"class": [], "z": ["a"]}}, "axes: found"),
    (letters, {"captions": ["a", "b"]}, "captions: found shape"),
    (letters, {"values": np.zeros(6)}, "values: found shape"),
    (letters, {"greys": 1}, "greys: found 1, expected 2 to 256"),
    (letters, {"start": [0]}, "start: found 1 positions, expected 2, one an axis"),
    (letters, {"start": [0, 3]}, r"start\[1\]: found 3, expected a position from 0 to 2"),
    (letters, {"title": ""}, "title: found an empty text"),
    (attack, {"images": torch.zeros(2, 2, 4, 4)}, "images: found 2 channels"),
    (attack, {"images": torch.full((2, 1, 4, 4), 256.0)}, "images: found 256 to 256"),
    (attack, {"radii": [8, 0]}, "radii: found .*expected rising numbers from 0"),
    (attack, {"attacked": {"FGSM": torch.zeros(1, 2, 1, 4, 4)}}, r"attacked\['FGSM'\]: found shape"),
    (attack, {"attacked": {"FGSM": torch.full((2, 2, 1, 4, 4), -1.0)}}, r"attacked\['FGSM'\]: found -1"),
    (attack, {"attacked": {}}, "probabilities: found"),
    (attack, {"probabilities": {"PGD": torch.zeros(2, 2, 3)}}, "probabilities: found .*PGD"),
    (attack, {"probabilities": {"FGSM": torch.zeros(2, 2, 3)}}, "probabilities.*sum to 1"),
    (attack, {"truth": [0, 3]}, "truth: found .*expected 2 positions in 3 names"),
    (attack, {"truth": [0]}, "truth: found"),
    (attack, {"start": -1}, "start: found -1"),
    (balance, {"marks": {"ESZSL": {}}}, "marks: found .*expected at least one γ"),
    (balance, {"marks": {"SAE": {"γ = 0": 0.0}}}, "marks: found .*SAE"),
    (balance, {"marks": {"ESZSL": {"γ = 0": np.inf}}}, r"marks\['ESZSL'\]: found .*not finite"),
    (balance, {"curves": {"ESZSL": CURVE.drop(columns="H")}}, r"curves\['ESZSL'\]: found no column \['H'\]"),
    (balance, {"curves": {"ESZSL": CURVE[:2]}}, "found 1 finite γ"),
    (balance, {"points": 1}, "points: found 1"),
]


@pytest.mark.parametrize(("make", "changes", "message"), BAD)
def test_bad_input_is_named(make, changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_a_piece_too_heavy_for_a_page_is_an_error():
    noise = np.random.default_rng(0).random((2, 3, 300, 300))
    with pytest.raises(DataError, match=rf"explorer: found \d+ bytes of HTML, expected at most {LIMIT}"):
        letters(images=noise, greys=256)


def committed_pieces():
    """The HTML of each piece in a committed notebook."""
    for path in sorted(Path(project_root() / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                text = "".join(output.get("data", {}).get("text/html", ""))
                if "data-zsl=" in text:
                    yield pytest.param(text, id=path.stem)


COMMITTED = list(committed_pieces())


@pytest.mark.parametrize("text", COMMITTED)
def test_the_books_pieces_are_light_and_of_this_script(text):
    assert len(text.encode()) <= LIMIT
    page = Elements(text)
    for kind in ("js", "css"):
        assert interactive._asset(kind).strip() in text, f"interactive.{kind} has changed: make refresh"
    assert len(page.tags[2][1]["alt"]) > 40


def test_the_book_has_each_kind_of_piece():
    kinds = {json.loads(Elements(case.values[0]).scripts[0])["kind"] for case in COMMITTED}
    assert kinds == set(MAKERS)
