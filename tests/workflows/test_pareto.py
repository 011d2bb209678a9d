"""One encoding, every form, and what a budget buys, from the command line."""

from typer.testing import CliRunner

from embedtrain.cli.main import app


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
    assert len(rows) == 1 + 2 * 13
    assert rows[1].startswith("32 float32,")
    assert (out / "pareto.svg").stat().st_size > 1000
    assert CliRunner().invoke(app, arguments).exit_code == 2  # it exists


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


def test_results_or_a_model_and_what_it_needs(bert, tmp_path):
    for wrong in ([], ["a.json", "--model", bert], ["--model", bert]):
        assert CliRunner().invoke(app, ["pareto", *wrong]).exit_code == 2
