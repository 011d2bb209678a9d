"""Result files, comparisons with a baseline and tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency, Latency, Machine
from embedtrain.evaluation.measures.statistics import bootstrap_interval, compare_paired
from embedtrain.evaluation.results.report import compare, render_text, result_tables, summarise
from embedtrain.evaluation.results.result import (
    EvaluatedData,
    Predictions,
    load_result,
    write_result,
)

EFFICIENCY = Efficiency(
    machine=Machine(cpu="Fast CPU [9000]", gpu=None, num_threads=2, memory_gib=16.0),
    num_documents=5000,
    documents_per_second=1234.5,
    query_latency=Latency(0.0031, 0.003, 0.0045, 200),
    bytes_per_document=1536.0,
)


def make_result(
    shift=0.0, *, fingerprint="f" * 16, queries=40, metrics=("ndcg_at_10", "mrr_at_10")
):
    rng = np.random.default_rng(0)
    data = EvaluatedData(
        name="scifact",
        split="test",
        fingerprint=fingerprint,
        num_queries=queries,
        num_documents=5000,
    )
    per_query = {
        name: {f"q{number}": float(rng.random() / 2 + shift) for number in range(queries)}
        for name in metrics
    }
    return summarise(per_query, data, efficiency=EFFICIENCY, num_resamples=200)


@pytest.fixture(scope="module")
def compared():
    return compare(make_result(shift=0.2), make_result(), "base.json", num_resamples=200)


def test_the_file_has_each_metric_at_its_top_level_and_nothing_else_but_sections(
    tmp_path, compared
):
    write_result(compared, tmp_path / "new folder" / "result.json")
    content = json.loads((tmp_path / "new folder" / "result.json").read_text())
    assert list(content) == [
        *("ndcg_at_10", "mrr_at_10", "data", "efficiency", "comparison", "per_query")
    ]
    for name in ("ndcg_at_10", "mrr_at_10"):
        values = np.array(list(content["per_query"][name].values()))
        interval = bootstrap_interval(values, num_resamples=200)
        assert content[name] == {
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "num": 40,
            "method": "studentised",
        }
    assert content["data"]["fingerprint"] == "f" * 16
    assert content["comparison"]["baseline"] == "base.json"
    assert content["efficiency"]["query_latency"]["p95_seconds"] == 0.0045
    assert set(content["comparison"]["metrics"]["ndcg_at_10"]) >= {
        *("difference", "low", "high", "p_value")
    }


def test_sections_that_were_not_measured_are_left_out():
    result = make_result().model_copy(update={"efficiency": None})
    assert list(result.to_json()) == ["ndcg_at_10", "mrr_at_10", "data", "per_query"]


def test_a_result_comes_back_from_its_file_unchanged(tmp_path, compared):
    path = tmp_path / "result.json"
    write_result(compared, path)
    assert load_result(path) == compared
    assert list(tmp_path.iterdir()) == [path]


def test_a_comparison_pairs_queries_by_id_and_not_by_order(compared):
    baseline = make_result()
    reversed_queries = {
        name: dict(reversed(values.items())) for name, values in baseline.per_query.items()
    }
    shuffled = baseline.model_copy(update={"per_query": reversed_queries})
    result = compare(make_result(shift=0.2), shuffled, "base.json", num_resamples=200)
    assert result == compared
    comparison = result.comparison.metrics["ndcg_at_10"]
    assert comparison.difference == pytest.approx(0.2)
    assert comparison.p_value == pytest.approx(1 / 201)


def test_clusters_reach_interval_and_test():
    result = make_result()
    clusters = {f"q{number}": str(number % 5) for number in range(40)}
    values = np.array(list(result.per_query["ndcg_at_10"].values()))
    labels = list(clusters.values())
    by_cluster = summarise(result.per_query, result.data, clusters=clusters, num_resamples=100)
    assert by_cluster.metrics["ndcg_at_10"] == bootstrap_interval(
        values, clusters=labels, num_resamples=100
    )
    compared = compare(by_cluster, make_result(0.1), "base.json", num_resamples=100)
    expected = compare_paired(values, values + 0.1, clusters=labels, num_resamples=100)
    assert compared.comparison.metrics["ndcg_at_10"].low == pytest.approx(expected.low)
    assert compared.comparison.metrics["ndcg_at_10"].p_value == pytest.approx(expected.p_value)


def test_only_shared_metrics_are_compared():
    baseline = make_result(metrics=("ndcg_at_10", "recall_at_100"))
    result = compare(make_result(), baseline, "base.json", num_resamples=50)
    assert list(result.comparison.metrics) == ["ndcg_at_10"]
    assert "MRR@10" in render_text(result)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ({"fingerprint": "g" * 16}, r"base\.json was measured on other data than scifact test"),
        ({"queries": 39}, r"other queries \(1 are in only one of the two\); got 'q39'"),
        ({"metrics": ("map_at_5",)}, "shares no metric with this result; got 'map_at_5'"),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_the_users_mistake(baseline, message):
    with pytest.raises(UserError, match=message):
        compare(make_result(), make_result(**baseline), "base.json")


def without_metric(content):
    return {name: content[name] for name in ("data", "per_query")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "[1, 2]", "is not a JSON object; got 'list'"),
        (lambda content: "{\n\n oops", r"result\.json:3 is not JSON"),
        (lambda content: json.dumps({"x": float("nan")}), "cannot be read; got .NaN is no number"),
        (
            lambda content: json.dumps({"before": content, "after": content}),
            r"before\.value: Field",
        ),
        (lambda content: json.dumps(without_metric(content)), "holds no metric"),
        (lambda content: json.dumps(content | {"data": {"name": "x"}}), r"data\.split: Field"),
        (lambda content: json.dumps(content | {"per_query": {}}), "no scores per query"),
        (lambda content: json.dumps(content | {"mrr_at_10": 0.5}), "mrr_at_10: Input should be"),
    ],
)
def test_a_file_that_is_no_result_is_the_users_mistake(tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(change(make_result().to_json()))
    with pytest.raises(UserError, match=message) as caught:
        load_result(path)
    assert "\n" not in str(caught.value)
    assert "embedtrain evaluate MODEL --data DIR --output FILE.json" in str(caught.value)


def test_files_that_cannot_be_read_are_the_users_mistake(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8"):
        load_result(tmp_path / "binary.json")
    with pytest.raises(UserError, match="does not exist"):
        load_result(tmp_path / "absent.json")
    with pytest.raises(UserError, match="is a folder"):
        load_result(tmp_path)


def test_a_metric_cannot_take_the_name_of_a_section():
    with pytest.raises(ValueError, match="the metric per_query has the name of a section"):
        make_result(metrics=("per_query",))


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fill_up(partial, content):
        with partial.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(UserError, match="the disk is full"):
        write_result(make_result(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="lies below a file"):
        write_result(make_result(), tmp_path / "file" / "result.json")


def test_the_tables_show_values_intervals_baseline_difference_and_cost(compared):
    interval = compared.metrics["ndcg_at_10"]
    text = render_text(compared)
    for shown in (
        "scifact test",
        f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
        f"{interval.value - 0.2:.3f}",
        "+0.200 [+0.200, +0.200]",
        "baseline: base.json",
        "1,234.5 documents/s",
        "4.5 ms",
        "1.54 KB",
        "Fast CPU [9000], 2 threads",
    ):
        assert shown in text, text


def test_every_table_fits_a_terminal_of_eighty_columns(compared):
    for table in result_tables(compared):
        assert Console(width=200).measure(table).maximum <= 80


def test_markdown_tables_have_as_many_cells_in_each_row(compared):
    parts = render_text(compared, markdown=True).split("\n\n")
    tables = [part for part in parts if part.startswith("|")]
    assert len(tables) == 2
    assert not any("intervals" in table or "threads" in table for table in tables), "no row"
    for table in tables:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len(rows) >= 4
        assert len({row.count("|") for row in rows}) == 1


def test_a_name_that_looks_like_markup_is_shown_as_it_is():
    result = compare(make_result(), make_result(), "[bold]x.json", num_resamples=50)
    assert "[bold]x.json" in render_text(result)


def test_the_difference_of_a_set_metric_is_the_result_less_the_baseline():
    expected = {f"p{number}": float(number % 7) for number in range(30)}
    noisy = {
        name: value + 5.0 * (number % 3) for number, (name, value) in enumerate(expected.items())
    }
    better, worse = (
        summarise(
            {},
            make_result().data,
            predictions=Predictions(predicted=predicted, expected=expected),
            set_metrics=("spearman",),
            num_resamples=50,
        )
        for predicted in (expected, noisy)
    )
    found = compare(better, worse, "base.json", num_resamples=50).comparison.metrics["spearman"]
    values = [one.metrics["spearman"].value for one in (better, worse)]
    assert found.difference == pytest.approx(values[0] - values[1])
    assert values[0] > values[1] + 0.1
