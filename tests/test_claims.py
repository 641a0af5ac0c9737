"""Claims: gaps at the same seed with Student's interval, and what they are called."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from zsl_lib.claims import (
    ANSWERS,
    TITLES,
    Claims,
    alike,
    differences,
    in_order,
    in_words,
    passed,
    strongest,
    told,
    verdict,
)
from zsl_lib.errors import DataError


def runs(dataset="toy", **methods):
    """A list of T1 a method, in the order of seeds; None: no run of that seed."""
    return pd.DataFrame(
        [
            {"dataset": dataset, "method": method, "seed": seed, "T1": value}
            for method, values in methods.items()
            for seed, value in enumerate(values)
            if value is not None
        ]
    )


def gaps(*intervals, dataset="toy", pairs=5):
    rows = [{"mean": (low + high) / 2, "low": low, "high": high, "pairs": pairs} for low, high in intervals]
    return pd.DataFrame(rows).assign(dataset=dataset)


def test_differences_are_of_the_first_minus_the_other_with_scipys_interval():
    a, b = [50.0, 52.0, 57.0], [49.0, 50.0, 52.0]
    (found,) = differences(runs(a=a, b=b), "T1", of="a", level=0.9).to_dict("records")
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (found["dataset"], found["method"], found["pairs"]) == ("toy", "b", 3)
    assert found["mean"] == pytest.approx(8 / 3)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_only_common_seeds_count_and_one_of_them_gives_no_interval():
    frame = runs(a=[1.0, 2.0, None], b=[None, 5.0, 7.0], c=[None, None, 3.0])
    (found,) = differences(frame, "T1", of="a").to_dict("records")
    assert (found["method"], found["mean"], found["pairs"]) == ("b", -3.0, 1)
    assert math.isnan(found["low"])


def test_groups_are_apart_and_keep_their_order():
    frame = pd.concat([runs("y", a=[2.0, 4.0], b=[1.0, 1.0]), runs("x", b=[3.0], c=[1.0])])
    frame = pd.concat([frame, runs("w", a=[0.0, 0.0], b=[5.0, 7.0])])
    found = differences(frame, "T1", of="a")
    assert found[["dataset", "method", "mean"]].values.tolist() == [["y", "b", 2.0], ["w", "b", -6.0]]
    by_both = differences(frame.assign(radius=4), "T1", of="a", by=["dataset", "radius"])
    assert by_both["radius"].tolist() == [4, 4]


def test_nothing_to_compare_with_is_no_row():
    assert differences(runs(a=[1.0, 2.0]), "T1", of="a").empty
    assert verdict(differences(runs(b=[1.0, 2.0]), "T1", of="a")) == "not measured yet"


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(DataError, match=r"differences: .*toy.* found two runs of one seed, expected one"):
        differences(pd.concat([runs(a=[1.0]), runs(a=[2.0])]), "T1", of="a")


@pytest.mark.parametrize(
    ("intervals", "answer"),
    [
        ([(0.1, 2), (0.2, 3)], "yes"),
        ([(0.1, 2), (0.0, 3)], "partly"),
        ([(-1, 2), (-3, -1)], "no"),
        ([(-1, 2), (-3, 1)], "not shown"),
        ([(0.1, 2), *[(-1, 2)] * 19], "not shown"),  # one of twenty
        ([(-2, -0.1), *[(-1, 2)] * 19], "not shown"),
        ([(-2, -0.1), *[(-1, 2)] * 18], "no"),
        ([(0.1, 2), (-2, -0.1)], "partly"),
        ([(0.1, 2), *[(-1, 2)] * 18], "partly"),
        ([(math.nan, math.nan), (0.1, 2)], "yes"),  # one seed says nothing
        ([(math.nan, math.nan)], "not measured yet"),
    ],
)
def test_a_verdict_counts_the_intervals_above(intervals, answer):
    assert verdict(gaps(*intervals)) == answer


def test_two_seeds_make_no_verdict():
    few = gaps((1, 2), pairs=2)
    assert verdict(few) == "not measured yet"
    assert verdict(pd.concat([few, gaps((-1, 2))])) == "not shown"
    assert alike(gaps((-1, 1), pairs=2), 2) == "not measured yet"
    assert in_words(pd.concat([few, few])) == "toy: +1.5 to +1.5 (2 seeds)"


def test_a_verdict_may_be_about_another_number_than_0():
    assert verdict(gaps((-1.5, 0.5)), above=-2) == "yes"
    assert verdict(gaps((-2.5, 0.5)), above=-2) == "not shown"
    assert verdict(gaps((-2.5, -2.1)), above=-2) == "no"


@pytest.mark.parametrize(
    ("intervals", "answer"),
    [
        ([(-1, 1), (-1.9, 1.9)], "yes"),
        ([(-1, 1), (-1, 3)], "partly"),
        ([(-1, 3)], "not shown"),
        ([(-1, 3), (2.1, 3)], "no"),
        ([(-1, 3), (-9, -2.1)], "no"),
    ],
)
def test_what_is_alike_lies_within(intervals, answer):
    assert alike(gaps(*intervals), 2) == answer


def test_words_give_the_interval_of_one_difference_and_the_range_of_many():
    assert in_words(gaps((1, 3))) == "toy: +2.0 [1.0, 3.0]"
    assert in_words(gaps((1, 3), (-4, 0))) == "toy: -2.0 to +2.0, 1 of 2 intervals above 0"
    assert in_words(gaps((1, 3), (-4, -1))) == "toy: -2.5 to +2.0, 1 of 2 intervals above 0, 1 below"
    assert in_words(gaps((1, 3), (-4, 0)), above=-5) == "toy: -2.0 to +2.0, 2 of 2 intervals above -5"
    assert in_words(gaps((1, 3), pairs=3)) == "toy: +2.0 [1.0, 3.0] (3 seeds)"
    two = pd.concat([gaps((1, 3)), gaps((0, 2), dataset="birds")])
    assert in_words(two) == "toy: +2.0 [1.0, 3.0]; birds: +1.0 [0.0, 2.0]"
    assert in_words(gaps().reindex(columns=["dataset"])) == "no records"


def test_words_of_one_seed_have_no_interval():
    one = gaps((1, 3), pairs=1).assign(low=math.nan, high=math.nan)
    assert in_words(one) == "toy: +2.0 (1 seed)"
    assert in_words(pd.concat([one, one])) == "toy: +2.0 to +2.0 (1 seed)"
    both = pd.concat([one, gaps((1, 3), pairs=4)])
    assert in_words(both) == "toy: +2.0 to +2.0, 1 of 1 intervals above 0 (1 to 4 seeds)"


def test_methods_are_in_the_order_of_tables_and_strangers_last():
    assert in_order(["zzz", "dem", "atzsl", "aaa", "dem"]) == ["atzsl", "dem", "aaa", "zzz"]
    assert len(set(TITLES.values())) == len(TITLES)


def test_claims_are_listed_and_counted():
    claims = Claims()
    claims.add("§5", "A is better", "toy: +1.0", "yes", "python a.py")
    claims.add("§6", "B is faster", "nothing", "not testable here", "")
    assert claims.markdown().splitlines() == [
        "- **Yes.** §5: *A is better.* Here: toy: +1.0. `python a.py`",
        "- **Not testable here.** §6: *B is faster.* Here: nothing.",
    ]
    assert claims.markdown("§6").startswith("- **Not testable here.** §6")
    assert claims.counts().to_dict() == dict.fromkeys(ANSWERS, 0) | {"yes": 1, "not testable here": 1}
    with pytest.raises(DataError, match="claim: C: found maybe, expected one of yes, partly, no"):
        claims.add("§7", "C", "", "maybe", "")


def test_a_claim_is_judged_by_the_gaps_of_each_measure():
    made = Claims()
    made.judge("§1", "a is above b", {"T1": gaps((1, 2)), "H": gaps((-1, 2))}, "run", more=". So")
    made.judge("§1", "hardly below", gaps((-1.5, 0.5)), "run", above=-2)
    assert [row["holds"] for row in made.rows] == ["partly", "yes"]
    assert made.rows[0]["measured"] == "T1: toy: +1.5 [1.0, 2.0]. H: toy: +0.5 [-1.0, 2.0]. So"
    assert made.rows[1]["measured"] == "toy: -0.5 [-1.5, 0.5]"


def test_the_strongest_rival_has_the_smallest_gap_of_its_group():
    rows = pd.DataFrame({"attack": ["x", "x", "y"], "method": ["b", "c", "b"], "mean": [3.0, 1.0, 2.0]})
    assert strongest(rows, ["attack"])["method"].tolist() == ["c", "b"]
    assert strongest(rows[:0], ["attack"]).empty


def test_a_gap_is_told_with_its_interval_if_it_has_one():
    (gap,) = (row for _, row in gaps((-1, 2)).iterrows())
    assert told(gap) == "+0.5 [-1.0, 2.0]"
    assert told(gap.replace(-1, math.nan)) == "+0.5"


def test_checks_name_the_methods_that_did_not_pass():
    rows = [("toy", "atzsl", 1), ("toy", "baseline", 0), ("toy", "baseline", 1), ("other", "atzsl", math.nan)]
    found = pd.DataFrame(rows, columns=["dataset", "method", "ok"])
    table = passed(found, {"ok": "Is it?", "no": "Was it?"}, ["toy", "other"])
    assert table["check"].tolist() == ["Is it?", "Was it?"]
    assert table["toy"].tolist() == ["2 of 3; not Baseline 1 of 2", "0 of 3, 3 undecided"]
    assert table["other"].tolist() == ["0 of 1, 1 undecided"] * 2
