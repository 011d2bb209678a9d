"""One encoding, every form, and what a budget buys, from the command line."""

import pytest
from typer.testing import CliRunner

from embedtrain.cli.ending import end
from embedtrain.cli.main import app
from embedtrain.errors import UserError


def test_the_command_measures_every_form_and_names_one(bert, beir, tmp_path):
    out = tmp_path / "forms"
    arguments = [
        "pareto",
        "--model",
        bert,
        "--data",
        str(beir),
        "--output",
        str(out),
        "--dim",
        "16",
    ]
    done = CliRunner().invoke(app, [*arguments, "--budget", "16B"], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "of the best (chosen on test)" in done.output
    rows = (out / "pareto.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 16
    assert rows[1].startswith("32 float32,")
    assert (out / "pareto.svg").stat().st_size > 1000
    assert "exists and is not empty" in refused(*arguments[1:])


def test_late_interaction_is_pooled_and_stored_whole(late_interaction, beir, tmp_path):
    words = ["pareto", "--model", late_interaction, "--data", str(beir)]
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "forms")])
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "forms" / "pareto.csv").read_text().splitlines()
    assert len(rows) == 1 + 12
    assert any("bits, pooled by 4" in row for row in rows)


def test_a_budget_that_buys_too_little_ends_with_1(bert, beir, tmp_path):
    arguments = [
        "pareto",
        "--model",
        bert,
        "--data",
        str(beir),
        "--output",
        str(tmp_path / "forms"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--budget", "1B", "--min", "1"])
    assert done.exit_code == 1
    assert "none keeps 100.0% within 1 bytes; nearest is" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "pareto takes result files or --model"),
        (["a.json", "--model", "m"], "pareto takes result files or --model"),
        (["--model", "m"], "--model needs --data and --output"),
        (["--model", "m", "--data", "d", "--output", "o", "--metric", "mrr"], "leave out --metric"),
    ],
)
def test_results_or_a_model_and_what_it_needs(words, said):
    assert said in refused(*words)


def refused(*words):
    done = CliRunner().invoke(app, ["pareto", *words])
    assert isinstance(done.exception, UserError), done.output
    assert end(done.exception) == 2
    return str(done.exception)
