"""`embedtrain init`: from a file of one's own to a recipe of at most 15 lines that runs as it is."""

import csv
import json

import pytest
import yaml
from typer.testing import CliRunner

from embedtrain.cli import init as cli_init
from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows import first_recipe
from embedtrain.workflows.first_recipe import look_at
from embedtrain.workflows.prepare import open_data
from embedtrain.workflows.train import train


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def faq(here, sentences):
    """A table whose columns have names of their own."""
    texts = list(dict.fromkeys(sentences))
    rows = zip(texts, [text + " indeed" for text in texts], strict=True)
    with (here / "faq.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "body", "wrong"])
        writer.writerows([title, body, "something else"] for title, body in rows)
    return "faq.csv"


def run(*arguments, **settings):
    return CliRunner().invoke(app, ["init", *map(str, arguments)], **settings)


def refused(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, UserError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


@pytest.mark.usefixtures("forked_reloads")
def test_a_recipe_written_for_a_file_trains_as_it_is(here, faq, bert, cache, monkeypatch):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(cache))
    columns = ["--query", "title", "--positive", "body", "--negatives", "wrong"]
    done = run(faq, *columns, "--model", bert, "--steps", 2, "--output", "my.yaml")
    assert done.exit_code == 0, done.exception
    assert "embedtrain train my.yaml" in done.stdout
    text = (here / "my.yaml").read_text()
    assert len(text.splitlines()) <= 15
    recipe = load_recipe("my.yaml")
    assert recipe.data.sources[0].columns.negatives == "wrong"
    assert recipe.trainer.steps == 2
    assert recipe.validation is not None
    train(recipe, here / "run")
    evaluation = json.loads((here / "run" / "evaluation.json").read_text())
    assert {"before", "after"} <= evaluation.keys()


def test_columns_with_common_names_need_not_be_named(here, write_jsonl):
    rows = [{"question": f"what is {n}", "answer": f"it is {n}", "neg_1": "no"} for n in range(40)]
    write_jsonl(rows, "pairs.jsonl")
    assert run("pairs.jsonl").exit_code == 0
    content = yaml.safe_load((here / "pairs.yaml").read_text())
    assert content["data"] == {"sources": [{"path": "pairs.jsonl"}]}
    assert content["trainer"] == "auto"
    assert "temperature" not in content["objective"]
    assert "evaluation" not in content, "40 rows are too few to hold some out"
    assert content["objective"]["name"] == "info_nce"


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_held_out_is_enough_where_questions_share_answers(
    here, write_jsonl, bert, cache, shuffled
):
    rows = [{"query": f"how to do {n}", "positive": f"so is {n // 20}"} for n in range(300)]
    if shuffled:  # groups of other sizes
        rows = [row | {"positive": f"so is {n * n % 23}"} for n, row in enumerate(rows)]
    write_jsonl(rows, "pairs.jsonl")
    assert run("pairs.jsonl", "--model", bert).exit_code == 0
    opened = open_data(load_recipe("pairs.yaml", [f"data.cache={cache}"]))
    assert min(len(task.queries) for task in (opened.validation, opened.evaluation)) >= 10


@pytest.mark.parametrize(
    "row",
    [
        lambda n: {"query": f"how to do {n}", "positive": "like this"},
        lambda n: {"query": f"how to do {n}", "positive": f"so is {n % 2}"},
        lambda n: {"sentence1": f"a {n}", "sentence2": f"b {n}", "score": 0.5},
    ],
)
def test_where_nothing_can_be_held_out_the_recipe_says_so(here, write_jsonl, row):
    write_jsonl([row(n) for n in range(300)], "pairs.jsonl")
    done = run("pairs.jsonl")
    assert "# Measures nothing: " in done.stdout
    recipe = load_recipe("pairs.yaml")
    assert recipe.validation is recipe.evaluation is None
    assert len((here / "pairs.yaml").read_text().splitlines()) <= 15


def test_a_first_part_of_a_file_leaves_room_for_what_the_rest_links(write_jsonl):
    rows = [{"query": f"how to do {n}", "positive": f"so is {n % 15}"} for n in range(3_000)]
    look = look_at(str(write_jsonl(rows)))
    content = yaml.safe_load(first_recipe.compose(look, {}, "m", {"epochs": 1.0}))
    assert 0.9 * 3_000 * content["evaluation"]["fraction"] > 3_000 / 15
    assert content["trainer"]["epochs"] == 1
    assert isinstance(content["trainer"]["epochs"], int)


def test_scores_choose_the_objective(here, write_jsonl):
    pair = {"sentence1": "a cat", "sentence2": "a dog"}
    write_jsonl([pair | {"score": n / 100} for n in range(100)], "sts.jsonl")
    write_jsonl(
        [
            {"query": f"q{n}", "positive": "p", "negatives": ["n"], "scores": [2.0, 1.0]}
            for n in range(99)
        ],
        "scored.jsonl",
    )
    assert run("sts.jsonl").exit_code == run("scored.jsonl").exit_code == 0
    assert load_recipe("sts.yaml").objective.name == "cosent"
    assert load_recipe("scored.yaml").objective.name == "kl_distillation"


def test_lengths_fit_nineteen_of_twenty_texts(write_jsonl):
    rows = [{"query": "x" * 100, "positive": "y" * (3000 if n < 3 else 800)} for n in range(100)]
    look = look_at(str(write_jsonl(rows)))
    model = yaml.safe_load(first_recipe.compose(look, {}, "m", {"steps": 1}))["model"]
    assert model["query"] == {"length": 32}
    assert model["document"] == {"length": 208}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no terminal to ask on. Give it: embedtrain init"),
        (["none.jsonl"], "none.jsonl does not exist"),
        (["faq.csv"], r"has no column for the query; got ['title', 'body', 'wrong']. Name it: --query"),
        (["faq.csv", "--query", "tittle"], "--query is no column of the file; got 'tittle'. Has title,"),
        (["faq.csv", "--query", "title"], "has no column for the positive"),
        (["faq.csv", "--steps", 1, "--minutes", 2], "--steps and --minutes exclude each other"),
        (["faq.csv", "--minutes", 0], "--minutes must be above 0"),
        (["empty.jsonl"], "is empty"),
        (["hole.jsonl"], "hole.jsonl:2 query is an empty text"),
        (["."], ". is no file of rows. Name one inside, such as empty.jsonl."),
        (["faq.csv", "--query", "body", "--positive", "body"], "--query and --positive name the same column; got 'body'"),
        (["good.jsonl", "--query", "positive"], "--query and --positive name the same column"),
        (["good.jsonl", "--output", "good"], "--output must end in .yaml"),
        (["good.jsonl"], "--output exists; got 'good.yaml'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(here, faq, write_jsonl, arguments, message):
    (here / "empty.jsonl").write_text("")
    write_jsonl([{"query": "a", "positive": "b"}, {"query": " ", "positive": "b"}], "hole.jsonl")
    write_jsonl([{"query": "a", "positive": "b"}], "good.jsonl")
    (here / "good.yaml").write_text("mine")
    assert message in refused(*arguments)
    assert (here / "good.yaml").read_text() == "mine"
    assert not (here / "faq.yaml").exists()


def test_on_a_terminal_it_asks_for_what_is_left_open(here, faq, monkeypatch):
    monkeypatch.setattr(cli_init, "_is_terminal", lambda: True)
    answers = ["titel", "title", "body", "-", "", "3 parsecs", "20 steps", "", ""]
    done = run("faq.csv", input="\n".join(answers))
    assert done.exit_code == 0, done.exception
    content = yaml.safe_load((here / "faq.yaml").read_text())
    assert content["data"]["sources"][0]["columns"] == {"query": "title", "positive": "body"}
    assert content["trainer"] == {"auto": True, "steps": 20}
    assert "No such column" in done.output
    assert "such as 10 minutes" in done.output


def test_minutes_become_steps_by_a_measured_one(here, write_jsonl, bert, monkeypatch, cache):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(cache))
    write_jsonl(
        [{"query": f"red cat {n}", "positive": f"blue dog {n}"} for n in range(80)], "p.jsonl"
    )
    assert run("p.jsonl", "--model", bert, "--minutes", 1).exit_code == 0
    assert load_recipe("p.yaml").trainer.steps > 10
    (here / "p.yaml").unlink()
    assert isinstance(
        run("p.jsonl", "--model", "missing/model", "--minutes", 1).exception, UserError
    )
    assert not (here / "p.yaml").exists(), "no recipe of one step is left behind"
