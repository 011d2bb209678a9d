"""Quality beside cost."""

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency, Latency, Machine
from embedtrain.evaluation.results.pareto import (
    Point,
    _draw,
    load_points,
    pareto_front,
    pareto_table,
)
from embedtrain.evaluation.results.plots import new_figure
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import EvaluatedData, write_result


def point(name, quality, size):
    return Point(name, quality, {"bytes": float(size), "latency": 1.0, "encoding": 1.0})


def test_the_front_holds_what_none_beats_on_both():
    points = [
        point("float", 0.7, 1536),
        point("int8", 0.7, 384),  # as good and smaller: float falls
        point("bits", 0.6, 48),
        point("worse", 0.5, 96),
        point("twin", 0.6, 48),
    ]
    assert pareto_front(points, "bytes") == [False, True, True, False, True]
    assert pareto_front(points, "latency") == [True, True, False, False, False]


def test_of_errors_the_front_holds_the_fewest():
    points = [
        Point(name, errors, {"bytes": size, "latency": 1.0, "encoding": 1.0}, counts_errors=True)
        for name, errors, size in (("good", 0.1, 9.0), ("bad", 0.3, 9.0), ("small", 0.4, 1.0))
    ]
    assert pareto_front(points, "bytes") == [True, False, True]


def write(path, quality, size, *, fingerprint="f", efficiency=True):
    data = EvaluatedData(
        name="x", split="test", fingerprint=fingerprint, num_queries=2, num_documents=9
    )
    cost = Efficiency(Machine("cpu", None, 2, 16.0), 9, 100.0, Latency(0.1, 0.1, 0.2, 9), size)
    per_query = {"ndcg_at_10": {"1": quality, "2": quality}}
    write_result(
        summarise(per_query, data, efficiency=cost if efficiency else None, num_resamples=9), path
    )
    return path


def test_the_command_marks_the_front_and_draws_it(tmp_path):
    paths = [write(tmp_path / f"{n}.json", 0.5 + n / 10, 10.0**n) for n in range(3)]
    arguments = ["pareto", *map(str, paths), "--plot", str(tmp_path / "p.svg")]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "100 bytes *" in done.output
    assert "100 ms *" in done.output
    assert "nDCG@10" in done.output
    assert (tmp_path / "p.svg").stat().st_size > 1000


def test_names_cover_neither_points_nor_each_other():
    crowd = [("all-MiniLM-L6-v2", 0.791, 1540), ("all-MiniLM-L6-v2, int8", 0.79, 394)]
    crowd += [("all-MiniLM-L6-v2, dim 96", 0.718, 384), ("all-MiniLM-L6-v2, binary", 0.751, 48)]
    crowd += [("late_interaction", 0.739, 66_900), ("colberter", 0.424, 10_400)]
    points = [point(*one) for one in crowd]
    with new_figure(None, width=4.4, height=3.2) as (figure, axes):
        _draw(axes, points, "ndcg_at_10", "bytes")
        figure.draw_without_rendering()
        boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
        dots = axes.transData.transform([(one.costs["bytes"], one.quality) for one in points])
    assert set(boxes) == {one.name for one in points}
    for name, box in boxes.items():
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name), name
        assert not any(box.contains(*dot) for dot in dots), name


def test_files_of_one_name_in_two_folders_are_two_entries(tmp_path):
    best = write(tmp_path / "a" / "x.test.json", 0.7, 1.0)
    beaten = write(tmp_path / "b" / "x.test.json", 0.5, 2.0)
    metric, points = load_points([best, beaten])
    assert [point.name for point in points] == ["a", "b"]
    assert pareto_front(points, "bytes") == [True, False]
    namesakes = [point("x", one.quality, one.costs["bytes"]) for one in points]
    sizes = pareto_table(namesakes, metric).columns[2].cells
    assert [cell.strip() for cell in sizes] == ["1 bytes *", "2 bytes"], (
        "beaten, whatever it is called"
    )


def test_results_that_do_not_go_together_are_refused(tmp_path):
    first = write(tmp_path / "a.json", 0.5, 1.0)
    for other, message in (
        (write(tmp_path / "b.json", 0.5, 1.0, fingerprint="g"), "measured on other data"),
        (write(tmp_path / "c.json", 0.5, 1.0, efficiency=False), "has no efficiency"),
    ):
        with pytest.raises(UserError, match=message):
            load_points([first, other])
    with pytest.raises(UserError, match="has no map_at_5"):
        load_points([first], "map_at_5")
