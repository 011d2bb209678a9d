"""What a budget buys, by hand."""

import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import PairedComparison
from embedtrain.evaluation.results.budget import (
    choose,
    dominating,
    parse_budget,
    sentence,
    write_points,
)
from embedtrain.evaluation.results.pareto import Point


def point(name, size, milliseconds, quality):
    costs = {"bytes": float(size), "latency": milliseconds / 1000, "encoding": 1.0}
    return Point(name, quality, costs)


POINTS = [
    point("A", 48, 1, 0.94),
    point("B", 48, 2, 0.95),
    point("C", 24, 1, 0.90),
    point("D", 48, 2, 0.94),
    point("E", 1536, 9, 1.0),
]


def test_what_is_beaten_in_all_three_is_not_on_the_front():
    assert dominating(POINTS) == [True, True, True, False, True]


def test_the_best_within_the_budget_is_named():
    choice = choose(POINTS, 64.0, 0.95)
    assert (choice.point.name, choice.fits) == ("B", True)
    assert "B: 48 bytes per document, 95.0% of the best" in sentence(choice, 64.0, 0.95)


def test_where_none_is_good_enough_the_nearest_is_named():
    choice = choose(POINTS, 64.0, 0.97)
    assert (choice.point.name, choice.fits) == ("B", False)
    assert sentence(choice, 64.0, 0.97).startswith("none keeps 97.0% within 64 bytes; nearest is B")
    assert choose(POINTS, 8.0, 0.5).point.name == "C"


def test_amounts():
    assert [parse_budget(text) for text in ("64B", "64", "1.5 KB", "2KiB")] == [64, 64, 1500, 2048]
    for wrong in ("", "0B", "64 apples", "-3"):
        with pytest.raises(UserError, match="no number of bytes"):
            parse_budget(wrong)


def test_tables_say_who_is_on_the_front(tmp_path):
    apart = [PairedComparison(one.quality - 0.94, -0.1, 0.1, 0.5, 0.1) for one in POINTS]
    write_points(tmp_path, POINTS, "ndcg_at_10", apart)
    rows = (tmp_path / "pareto.csv").read_text().splitlines()
    assert rows[0].startswith("form,ndcg_at_10,difference,low,high,bytes,latency")
    assert [row[-1] for row in rows[1:]] == list("11101")
    text = (tmp_path / "pareto.md").read_text()
    assert "| D | 0.9400 | +0.0000 [-0.1000, +0.1000] | 48 | 2 ms |  |" in text
