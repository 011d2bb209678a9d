"""Comparisons of several systems over several tasks."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import compare_paired, holm_correction
from embedtrain.evaluation.results.comparison import (
    ALL_TASKS,
    SystemResults,
    compare_systems,
    comparison_table,
    load_systems,
    own_words,
    shared_words,
    write_comparison,
)
from embedtrain.evaluation.results.plots import plot_comparison
from embedtrain.evaluation.results.report import compare, render_text, summarise
from embedtrain.evaluation.results.result import EvaluatedData, Predictions, write_result


def make_result(values, name="scifact", metric="ndcg_at_10", resamples=200):
    data = EvaluatedData(
        name=name, split="test", fingerprint=name, num_queries=len(values), num_documents=9
    )
    per_query = {metric: {f"q{n}": float(value) for n, value in enumerate(values)}}
    return summarise(per_query, data, num_resamples=resamples)


def make_sts(noise, expected, name="stsb"):
    items = [str(number) for number in range(len(expected))]
    data = EvaluatedData(
        name=name, split="test", fingerprint=name, num_queries=9, num_documents=9, task="sts"
    )
    predictions = Predictions(
        predicted=dict(zip(items, (expected + noise).tolist(), strict=True)),
        expected=dict(zip(items, expected.tolist(), strict=True)),
    )
    return summarise({}, data, predictions=predictions, set_metrics=("spearman",))


@pytest.fixture
def systems():
    rng = np.random.default_rng(0)
    base, expected = rng.random((3, 80)), rng.normal(size=80)
    found = []
    for name, shift in (("base", 0.0), ("same", 0.0), ("better", 0.1)):
        scores = base + shift + 0.05 * rng.normal(size=base.shape) * (name != "base")
        results = {f"t{n}": make_result(scores[n], f"t{n}") for n in range(3)}
        noise = (0.8 - 4 * shift) * rng.normal(size=80)
        results["stsb"] = make_sts(noise, expected)
        found.append(SystemResults(name, results))
    return found


def test_every_system_and_task_is_a_row_and_holm_corrects_over_all_of_them(systems):
    rows = compare_systems(systems)
    singles = [row for row in rows if row.task != ALL_TASKS]
    assert [(row.system, row.task) for row in singles] == [
        (name, task) for name in ("same", "better") for task in ("t0", "t1", "t2", "stsb")
    ]
    corrected = holm_correction([row.p_value for row in singles])
    assert [row.corrected_p_value for row in singles] == corrected
    first = singles[0]
    values = [
        np.array(list(systems[place].results["t0"].per_query["ndcg_at_10"].values()))
        for place in (1, 0)
    ]
    expected = compare_paired(*values)
    assert (first.difference, first.p_value) == (expected.difference, expected.p_value)
    better = [row for row in singles if row.system == "better" and row.task != "stsb"]
    assert all(row.corrected_p_value < 0.05 for row in better)


def test_of_two_systems_the_one_with_fewer_errors_wins():
    few = make_result([0.0] * 30, metric="xsim_error")
    many = make_result([0.0, 1.0] * 15, metric="xsim_error")
    systems = [SystemResults("many", {"x": many}), SystemResults("few", {"x": few})]
    (row,) = compare_systems(systems)
    assert (row.value, row.baseline_value, row.difference) == (0.0, 0.5, 0.5)
    assert row.low > 0
    assert row.p_value < 0.01
    table = comparison_table([row], "many")
    assert "of Xsim error less is better" in table.caption
    text = render_text(compare(few, many, "many"))
    assert "0.500" in text.splitlines()[2], "the baseline's own value"
    assert "less is better" in text


def test_the_mean_over_tasks_averages_values_and_is_surer_than_each_task(systems):
    rows = compare_systems(systems)
    mean = next(row for row in rows if row.task == ALL_TASKS and row.system == "same")
    singles = [row for row in rows if row.system == "same" and row.task != ALL_TASKS]
    assert mean.difference == pytest.approx(np.mean([row.difference for row in singles]))
    assert mean.minimum_detectable_difference < max(
        row.minimum_detectable_difference for row in singles
    )


def test_the_mean_over_tasks_raises_a_false_alarm_about_five_times_in_a_hundred(monkeypatch):
    from embedtrain.evaluation.results import report

    few = lambda *values, clusters, num_resamples: compare_paired(  # noqa: E731
        *values, clusters=clusters, num_resamples=20
    )
    monkeypatch.setattr(report, "compare_paired", few)  # the mean needs no resamples of the tasks
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(400):
        scores = rng.normal(size=(2, 3, 40))
        systems = [
            SystemResults(
                str(place),
                {str(n): make_result(scores[place, n], str(n), resamples=2) for n in range(3)},
            )
            for place in (0, 1)
        ]
        alarms += compare_systems(systems)[-1].p_value < 0.05
    assert 0.03 <= alarms / 400 <= 0.08


def test_files_and_folders_are_read_and_named(systems, tmp_path):
    for system in systems[:2]:
        for task, result in system.results.items():
            write_result(result, tmp_path / system.name / f"{task}.json")
    loaded = load_systems([tmp_path / "base", tmp_path / "same"])
    assert [system.name for system in loaded] == ["base", "same"]
    assert set(loaded[0].results) == {"t0 test", "t1 test", "t2 test", "stsb test"}
    files = load_systems([tmp_path / "base" / "t0.json", tmp_path / "same" / "t0.json"])
    assert [one.name for one in files] == ["base", "same"], "equal stems are told apart by folder"


def test_systems_that_cannot_be_compared_are_the_users_mistake(systems, tmp_path):
    with pytest.raises(UserError, match="needs two systems or more; got 1"):
        load_systems([tmp_path])
    with pytest.raises(UserError, match="holds no result"):
        load_systems([tmp_path, tmp_path])
    fewer = SystemResults("fewer", {"t0": systems[1].results["t0"]})
    with pytest.raises(UserError, match="not measured on the same tasks; got 'stsb'"):
        compare_systems([systems[0], fewer])
    with pytest.raises(UserError, match=r"same has no mrr_at_10 on t0; got \['ndcg_at_10'\]"):
        compare_systems(systems, "mrr_at_10")


def test_the_plot_is_written_and_the_same_every_time(systems, tmp_path):
    rows = compare_systems(systems)
    for name in ("a.svg", "a.png"):
        plot_comparison(rows, "base", tmp_path / "plots" / name)
        assert (tmp_path / "plots" / name).stat().st_size > 1000
    with pytest.raises(UserError, match=r"unknown ending; got 'a\.txt'"):
        plot_comparison(rows, "base", tmp_path / "a.txt")


def test_the_command_prints_a_table_and_writes_json_and_a_plot(systems, tmp_path):
    for system in systems:
        write_result(system.results["t0"], tmp_path / f"{system.name}.json")
    paths = [str(tmp_path / f"{system.name}.json") for system in systems]
    output, plot = tmp_path / "c.json", tmp_path / "c.svg"
    arguments = ["compare", *paths, "--output", str(output), "--plot", str(plot)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "better" in done.output
    content = json.loads(output.read_text())
    assert content["baseline"] == "base"
    assert len(content["comparisons"]) == 2
    assert plot.is_file()
    write_comparison([], "x", output)
    assert json.loads(output.read_text()) == {"baseline": "x", "comparisons": []}


def test_a_narrow_terminal_cuts_nothing(systems):
    named = [replace(one, name=f"late-interaction-{one.name}") for one in systems]
    rows = compare_systems(named)
    console = Console(width=80, file=StringIO())
    console.print(comparison_table(rows, "base"))
    shown = console.file.getvalue()
    assert "…" not in shown
    for row in rows:
        assert f"[{row.low:+.3f}, {row.high:+.3f}]" in shown


def test_what_all_rows_share_is_said_once(systems):
    rows = compare_systems(systems)
    ranked = [row for row in rows if row.metric == "ndcg_at_10"]
    one_task = [row for row in ranked if row.task == ranked[0].task]
    assert shared_words(one_task) == f"nDCG@10 on {ranked[0].task}"
    assert [own_words(row, one_task) for row in one_task] == ["", ""]
    assert shared_words(ranked) == "nDCG@10"
    assert [own_words(row, ranked) for row in ranked] == [row.task for row in ranked]
    assert shared_words(rows) == ""
    assert own_words(ranked[0], rows) == f"{ranked[0].task} (nDCG@10)"
    assert own_words(rows[-1], rows) == ALL_TASKS


@pytest.mark.parametrize("flag", ["--output", "--plot"])
def test_the_command_writes_over_no_folder(flag, systems, tmp_path):
    for system in systems[:2]:
        write_result(system.results["t0"], tmp_path / f"{system.name}.json")
    (tmp_path / "x.svg").mkdir()
    files = [str(tmp_path / f"{system.name}.json") for system in systems[:2]]
    done = CliRunner().invoke(app, ["compare", *files, flag, str(tmp_path / "x.svg")])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{flag} is a folder; got")
    assert list((tmp_path / "x.svg").iterdir()) == []
