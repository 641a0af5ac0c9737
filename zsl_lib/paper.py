"""The numbers that papers 1 (ABP) and 2 (ATZSL) print, as printed: misprints are the errata page's."""

from __future__ import annotations

from io import StringIO

import pandas as pd

from zsl_lib.errors import DataError

IMAGENET_CLASSES = {"2-hops": 1509, "3-hops": 7678}
"""Unseen classes of paper 1's 2Hop and 3Hop (§5.4)."""

_TABLES = {
    1: """
kind           method CUB  AwA1 AwA2 SUN
discriminative DAP    40.0 44.1 46.1 39.9
discriminative CMT    34.6 39.5 37.9 39.9
discriminative LATEM  49.3 55.1 55.8 55.3
discriminative ALE    54.9 59.9 62.5 58.1
discriminative DEVISE 52.0 54.2 59.7 56.5
discriminative SJE    53.9 65.6 61.9 53.7
discriminative ESZSL  53.9 58.2 58.6 54.5
discriminative SYNC   55.6 54.0 46.6 56.3
discriminative SAE    33.3 53.0 54.1 40.3
discriminative DEM    51.7 65.7 66.5 60.8
discriminative GFZSL  49.3 68.3 63.8 60.6
generative     VZSL   56.3 67.1 66.8 59.0
generative     GAZSL  55.8 63.7 64.2 60.1
generative     FGZSL  57.7 65.6 66.9 58.6
generative     MCGZSL 58.4 66.8 67.3 60.0
generative     ABP    58.5 69.3 70.4 61.5
""",
    2: """
kind           method CUB_AU CUB_AS CUB_H AwA1_AU AwA1_AS AwA1_H AwA2_AU AwA2_AS AwA2_H SUN_AU SUN_AS SUN_H
discriminative DAP     1.7 67.9  3.3  0.0 88.7  0.0  0.0 84.7  0.0  4.2 25.1  7.2
discriminative DEVISE 23.8 53.0 32.8 13.4 68.7 22.4 17.1 74.7 27.8 16.9 27.4 20.9
discriminative CMT     7.2 49.8 12.6  0.9 87.6  1.8  0.5 90.0  1.0  8.1 21.8 11.8
discriminative SJE    23.5 59.2 33.6 11.3 74.6 19.6  8.0 73.9 14.4 14.7 30.5 19.8
discriminative LATEM  15.2 57.3 24.0  7.3 71.7 13.3 11.5 77.3 20.0 14.7 28.8 19.5
discriminative ESZSL  12.6 63.8 21.0  6.6 75.6 12.1  5.9 77.8 11.0 11.0 27.9 15.8
discriminative ALE    23.7 62.8 34.4 16.8 76.1 27.5 14.0 81.8 23.9 21.8 33.1 26.3
discriminative SAE     7.8 54.0 13.6  1.8 77.1  3.5  1.1 82.2  2.2  8.8 18.0 11.8
discriminative DEM    19.6 57.9 29.2 32.8 84.7 47.3 30.5 86.4 45.1 20.5 34.3 25.6
generative     VZSL   44.9 54.1 49.1 53.4 68.3 59.9 51.7 67.2 58.4 43.5 34.9 38.7
generative     GAZSL  26.5 57.4 36.2 32.8 84.7 47.3 59.9 68.3 53.4 21.7 34.5 26.7
generative     FGZSL  45.9 54.6 49.9 53.1 68.0 59.6 50.2 67.5 57.5 40.2 36.4 38.2
generative     MCGZSL 45.7 61.0 52.3 56.9 64.0 60.2 51.9 67.2 58.6 49.4 33.6 40.0
generative     ABP    47.0 54.8 50.6 57.3 67.1 61.8 55.3 72.6 62.6 45.3 36.8 40.6
""",
    3: """
method parameters mult_adds
FGZSL  20.62 41.23
VZSL   21.90 43.78
ABP     9.71 19.42
""",
    4: """
method GTA  DET  DET_30 DET_50 DET_70 DET_90
GAZSL  74.1 72.7 68.5   63.7   55.6   37.7
ABP    76.7 75.2 72.9   71.3   64.8   51.6
""",
}

_ATTACKED = {
    2: """
attack   radius  DEM  FGN MC-ZSL  LDF Baseline ATZSL gain
fgsm          1 35.2 39.8   38.6 39.7     42.3  50.7  8.4
fgsm          2 30.5 32.8   29.5 28.9     34.5  47.2 12.7
fgsm          4 25.7 21.8   24.4 20.4     23.2  41.3 15.6
ifgsm         1 32.3 38.1   35.7 35.0     35.6  51.5 13.4
ifgsm         2 23.6 30.4   30.9 28.7     27.7  48.3 17.4
ifgsm         4 17.1 19.1   20.9 17.6     19.2  40.6 19.7
deepfool      0 30.8 34.3   27.9 30.2     38.4  51.2 12.8
cw            0 34.1 32.0   29.3 28.9     34.0  47.5 13.4
wrm           1 33.1 30.3   35.2 39.9     38.2  49.6  9.7
wrm           2 24.7 23.5   27.2 31.1     34.6  42.1  7.5
wrm           4 17.1 19.1   20.2 27.4     25.4  39.9 12.5
zoo           0 30.9 30.3   31.1 26.0     33.7  45.6 11.9
""",
    4: """
attack   radius  DEM  FGN MC-ZSL  LDF Baseline ATZSL gain
fgsm          1 26.3 28.3   27.8 25.0     29.4  50.9 21.5
fgsm          2 23.1 21.5   21.8 18.8     24.9  48.7 23.8
fgsm          4 17.7 16.2   17.4 15.4     19.9  46.1 26.2
ifgsm         1 21.9 24.8   19.9 23.7     23.5  49.2 24.4
ifgsm         2 15.8 20.3   19.4 17.1     17.5  43.5 23.2
ifgsm         4 12.9 16.7   15.5 14.4     14.7  37.7 21.0
deepfool      0 19.2 14.5   19.1 12.8     21.8  45.2 23.4
cw            0 19.6 16.2   17.2 16.8     21.3  40.2 18.9
wrm           1 25.9 25.9   21.3 27.8     29.3  50.6 21.3
wrm           2 19.3 18.2   21.0 17.7     21.9  43.4 21.5
wrm           4 15.8 16.6   16.2 15.3     20.7  40.3 19.6
zoo           0 17.0 16.2   22.5 20.9     17.2  41.8 19.3
""",
    6: """
attack   radius DEM FGN MC-ZSL LDF Baseline ATZSL gain
fgsm          1 4.4 5.9    6.4 6.4      6.3  27.9 21.5
fgsm          2 3.5 2.7    4.2 5.7      4.1  23.5 17.8
fgsm          4 0.8 0.8    2.0 0.6      0.6  15.0 13.0
ifgsm         1 2.5 5.3    2.4 4.0      2.5  25.8 20.5
ifgsm         2 0.4 2.5    0.8 2.7      4.3  19.7 15.4
ifgsm         4 0.4 0.2    0.6 0.2      2.4  13.9 11.5
deepfool      0 2.5 4.6    4.2 2.5      6.8  25.1 18.3
cw            0 6.7 2.5    6.4 5.3      7.7  23.7 16.0
wrm           1 5.8 6.1    2.5 3.9      4.4  25.2 19.1
wrm           2 2.1 2.5    0.2 2.3      2.0  20.9 18.4
wrm           4 0.6 0.6    0.2 0.4      0.2  15.1 14.5
zoo           0 4.9 4.4    0.6 8.3      7.3  25.2 16.9
""",
    8: """
attack   radius DEM  FGN MC-ZSL LDF Baseline ATZSL gain
fgsm          1 3.6 10.9   11.1 8.6      9.3  35.8 24.7
fgsm          2 2.4  3.7    2.3 3.7      4.4  28.2 23.8
fgsm          4 0.6  2.0    2.2 0.8      1.8  21.2 19.0
ifgsm         1 3.2  3.8    9.5 9.4      7.9  33.5 24.0
ifgsm         2 1.7  0.6    4.2 2.7      4.4  24.0 19.6
ifgsm         4 1.0  0.6    3.5 1.8      1.6  15.3 11.8
deepfool      0 3.6  7.9    5.0 4.2     10.6  29.8 19.2
cw            0 5.0  4.8    5.7 4.4      6.7  28.2 21.5
wrm           1 4.8  5.8    4.6 8.3      5.9  34.2 25.9
wrm           2 0.2  0.6    2.0 5.5      0.6  28.7 23.2
wrm           4 0.2  0.8    1.8 0.6      0.8  16.5 14.7
zoo           0 5.9  7.7    6.7 5.5      7.6  30.5 22.8
""",
}

_POISONED = {
    3: """
attack radius  DEM  FGN MC-ZSL  LDF Baseline ATZSL gain
fgsm        9 30.0 32.6   29.3 29.4     33.9  46.8 12.9
fgsm       18 24.7 25.6   21.9 22.2     26.2  41.4 15.2
fgsm       27 22.3 22.8   17.2 15.7     21.7  38.6 15.8
ifgsm       9 27.3 29.7   27.5 28.6     30.2  42.0 11.8
ifgsm      18 19.0 21.3   20.2 23.1     20.1  35.7 12.6
ifgsm      27 17.1 17.5   16.5 20.2     17.4  31.8 11.6
wrm         9 28.9 30.7   33.8 30.6     31.3  49.6 15.8
wrm        18 20.9 25.7   24.8 23.6     24.8  41.6 15.9
wrm        27 17.9 21.9   18.4 17.1     21.7  38.6 16.7
""",
    5: """
attack radius  DEM  FGN MC-ZSL  LDF Baseline ATZSL gain
fgsm       18 19.9 22.9   19.8 22.1     26.3  42.2 15.9
fgsm       36 13.7  6.4    7.8  9.0     11.1  31.2 17.5
fgsm       54  0.6  2.5    2.7  5.3      5.5  24.5 19.0
ifgsm      18 16.9 18.9   16.1 16.9     21.7  40.2 18.5
ifgsm      36  4.4  9.9    5.2  2.5      7.3  25.9 16.0
ifgsm      54  1.2  2.0    0.8  2.2      3.7  18.3 14.6
wrm        18 18.9 14.5   15.0 17.5     17.7  40.5 21.6
wrm        36  5.3  3.5   10.7 11.2      7.3  38.0 26.8
wrm        54  2.2  0.6    1.4  2.2      3.9  27.8 23.9
""",
    7: """
attack radius  DEM  FGN MC-ZSL LDF Baseline ATZSL gain
fgsm        9  6.3 12.2    7.8 9.0      8.0  38.5 26.3
fgsm       18  1.2  4.2    4.4 3.5      4.1  35.1 30.7
fgsm       27  0.4  2.2    0.6 0.4      0.8  29.4 27.2
ifgsm       9  5.8  3.5    7.3 9.0      5.5  36.5 27.5
ifgsm      18  2.0  0.4    3.5 3.7      2.0  32.7 29.0
ifgsm      27  1.0  0.4    0.6 2.3      0.8  23.6 21.3
wrm         9 10.4  7.0    6.4 8.0      6.6  36.1 25.7
wrm        18  4.9  2.0    4.1 2.2      3.5  30.1 25.2
wrm        27  2.5  0.8    0.6 0.6      1.4  23.8 21.3
""",
    9: """
attack radius DEM  FGN MC-ZSL  LDF Baseline ATZSL gain
fgsm       18 3.6 13.9   16.7 14.1     17.0  37.9 20.9
fgsm       36 0.6  7.1    8.3  4.6      7.8  33.4 25.1
fgsm       54 0.2  4.4    3.5  0.6      5.3  28.8 23.5
ifgsm      18 3.6 14.4   12.8 17.1     14.9  34.5 17.4
ifgsm      36 0.8  6.0    7.8  5.8      6.6  27.4 19.6
ifgsm      54 0.8  3.5    1.8  2.9      5.7  18.9 13.2
wrm        18 2.0 17.1   10.5 12.8     15.5  37.5 20.4
wrm        36 1.5  8.8    2.3  3.5      6.2  31.5 22.7
wrm        54 0.6  1.0    0.6  2.0      4.2  28.2 24.0
""",
}


_ITERATION = """
dataset attack    forward search forward_attacked backward total
AWA2    image          22    226               22      103   378
AWA2    attribute       2     17                2        9    31
CUB     image           7     70                7       34   119
CUB     attribute       2     12                2        6    23
"""


def table(number: int) -> pd.DataFrame:
    """Paper 1, by method: Table 1 (T1), 2 (AU, AS, H), 4 (T1, DET_30 with 30 % of DET masked) in per cent, or
    3 (CUB, in millions).

    Raises
    ------
    DataError: another number.
    """
    if number not in _TABLES:
        raise DataError("paper 1: table", found=number, expected=f"one of {', '.join(map(str, _TABLES))}")
    return pd.read_csv(StringIO(_TABLES[number]), sep=r"\s+").set_index("method")


def attacked(number: int) -> pd.DataFrame:
    """Paper 2, attacks on images: Table 2 (AWA2) or 4 (CUB), HT1 in per cent; 6 (AWA2) or 8 (CUB), HHM.

    A row an attack and radius in pixels, 0 where the paper has a dash. ``gain`` is printed too: ATZSL over
    the strongest competitor.

    Raises
    ------
    DataError: another number.
    """
    return _by_attack(_ATTACKED, number)


def poisoned(number: int) -> pd.DataFrame:
    """Paper 2, attacks on attributes: Table 3 (AWA2) or 5 (CUB), HT1 in per cent; 7 (AWA2) or 9 (CUB), HHM.

    A row an attack and radius, on attributes from 0 to 100. ``gain`` as in :func:`attacked`.

    Raises
    ------
    DataError: another number.
    """
    return _by_attack(_POISONED, number)


def _by_attack(tables: dict[int, str], number: int) -> pd.DataFrame:
    if number not in tables:
        raise DataError("paper 2: table", found=number, expected=f"one of {', '.join(map(str, tables))}")
    return pd.read_csv(StringIO(tables[number]), sep=r"\s+").set_index(["attack", "radius"])


def iteration_seconds() -> pd.DataFrame:
    """Paper 2, Table 10: seconds of the parts of a training iteration, and their total as it is printed."""
    return pd.read_csv(StringIO(_ITERATION), sep=r"\s+").set_index(["dataset", "attack"])
