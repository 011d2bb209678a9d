"""The page of a report: complete, escaped, and without anything from outside."""

import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Price
from embedtrain.evaluation.results.page import page, paragraph, table
from embedtrain.evaluation.results.result import Ties, load_result, write_result
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.retrieval.compression import Compression
from embedtrain.workflows.evaluate.report import find_suspects, write_report
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

CHROMIUM = Path("/usr/bin/chromium")
VOID = {"meta", "br", "hr", "img", "link"}


class Reader(HTMLParser):
    """Collects texts and outside addresses; fails where tags do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        assert tag not in {"script", "iframe", "link", "img"}
        self.addresses += [
            value for name, value in attributes if name in {"src", "href"} and value[0] != "#"
        ]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def scores(bert, late_interaction, beir, tmp_path_factory):
    """Results of two models, and of the first cut to eight dimensions."""
    folder = tmp_path_factory.mktemp("scores")
    for name, model, compression in (
        ("mine", bert, Compression()),
        ("base", late_interaction, Compression()),
        ("small", bert, Compression(dim=8)),
    ):
        evaluate_tasks(model, Wish([str(beir)], compression=compression), folder / f"{name}.json")
    return folder


def test_a_page_shows_scores_pictures_wins_losses_and_suspects(scores, beir, tmp_path):
    arguments = ["report", str(scores / "mine.json"), str(scores / "small.json")]
    more = ["--baseline", str(scores / "base.json"), "--data", str(beir)]
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, [*arguments, *more, "--output", str(output)])
    assert done.exit_code == 0, done.output
    reader = read(output)
    text = " ".join(reader.texts)
    for shown in ("Scores: mine", "ndcg_at_10", "Wins over base", "Suspected label errors"):
        assert shown in text
    assert text.count("quality against") == 4
    assert reader.addresses == []
    assert "http" not in output.read_text().replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    facts = json.loads(output.with_suffix(".json").read_text())
    assert facts["mine"]["ndcg_at_10"]["value"] >= 0
    queries = open_task(str(beir)).texts
    for change in facts["wins"] + facts["losses"]:
        assert change["text"] == queries[change["item"]]
    assert all(one["value"] > one["baseline"] for one in facts["wins"])


def test_a_page_shows_every_cost_and_what_else_weakens_a_score(scores, tmp_path):
    source = load_result(scores / "mine.json")
    assert source.efficiency is not None
    latency = replace(source.efficiency.query_latency, p99_seconds=0.0625)
    cost = replace(
        source.efficiency,
        query_latency=latency,
        index_bytes=123456,
        peak_memory_bytes=7654321,
        price=Price(0.0, 12.25, 34.5),
    )
    ties = Ties(cutoff=10, tied_queries=0.4, expected={"ndcg_at_10": 0.321})
    overlap = {"equal_queries": 0.2, "queries_sharing_13_words": 0.3}
    full = source.model_copy(update={"efficiency": cost, "ties": ties, "train_overlap": overlap})
    text = shown(full, tmp_path)
    for row in (
        *("99 % 0.0625", "index 123456", "memory, peak 7654321", "an hour 0 ", "documents 12.25"),
        *(
            "one by one 34.5",
            "20.0% of the queries are among the training queries",
            "30.0% share 13",
        ),
        "40.0% of the queries are tied at rank 10; expected with ties in random order: nDCG@10 0.321",
    ):
        assert row in text
    old = replace(cost, query_latency=replace(latency, p99_seconds=None), index_bytes=None)
    bare = source.model_copy(
        update={"efficiency": replace(old, price=None, peak_memory_bytes=None)}
    )
    text = shown(bare, tmp_path)
    assert "bytes per document" in text
    for absent in ("99 %", "of the index", "peak", "price", "None", "training queries", "tied"):
        assert absent not in text


def shown(result, folder):
    """Return the words of the page about a result."""
    write_result(result, folder / "result.json")
    path = write_report([folder / "result.json"], folder / "page.html")
    return " ".join(" ".join(read(path).texts).split())


def test_results_of_one_name_in_two_folders_stay_apart(scores, tmp_path):
    paths = []
    for name in ("mine", "small", "base"):
        (tmp_path / name).mkdir()
        paths.append(shutil.copy(scores / f"{name}.json", tmp_path / name / "beir.test.json"))
    output = write_report(paths[:2], tmp_path / "page.html", baseline=paths[2])
    text = " ".join(read(output).texts)
    for path in paths[:2]:
        assert f"Scores: {path}" in text
    assert f"Wins over {paths[2]}" in text
    facts = json.loads(output.with_suffix(".json").read_text())
    for path in paths[:2]:
        assert facts[str(path)] == json.loads(path.read_text())
    write_report([scores / "mine.json", paths[1]], output, baseline=paths[1])
    text = " ".join(read(output).texts)
    assert "Scores: beir.test" in text
    assert "Wins over beir.test" in text, "the baseline keeps the name that its scores have"


def test_an_unjudged_document_above_every_positive_is_a_suspect(beir):
    task = open_task(str(beir))
    run = {query: {f"d{query[1:]}": 1.0, "d29": 0.5} for query in task.texts}
    run["q3"] = {"d3": 0.5, "d29": 0.9, "d28": 0.7}
    (suspect,) = find_suspects(task, run)
    assert suspect.query == task.texts["q3"]
    assert suspect.margin == pytest.approx(0.4)
    assert suspect.document == task.task.documents[29]


def test_a_run_folder_shows_curves_and_recipe(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("description: <b>bold</b>\n")
    (run / "checkpoints").mkdir()
    (run / "metrics.csv").write_text("step,train/loss,lr\n1,2.5,0.1\n2,1.5,0.1\n")
    path = write_report([run], tmp_path / "run.html")
    assert "description: <b>bold</b>" in " ".join(read(path).texts), "escaped, so it is text"
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["curves"] == {"train/loss": [[1, 2.5], [2, 1.5]]}


def test_markup_in_texts_stays_text(tmp_path):
    path = tmp_path / "x.html"
    nasty = "<script>alert(1)</script>"
    path.write_text(page(nasty, [(nasty, [paragraph(nasty), table((nasty, "n"), [(nasty, 1)])])]))
    assert read(path).texts.count(nasty) == 6


def test_wrong_sources_are_the_users_mistake(scores, beir, tmp_path, write_jsonl):
    with pytest.raises(UserError, match=r"must end in \.html"):
        write_report([scores / "mine.json"], tmp_path / "x.pdf")
    before = (scores / "mine.json").read_bytes()
    for baseline in (None, scores / "mine.json"):
        source = scores / ("small.json" if baseline else "mine.json")
        with pytest.raises(UserError, match="would write its JSON over a result"):
            write_report([source], scores / "mine.html", baseline=baseline)
    assert (scores / "mine.json").read_bytes() == before
    (tmp_path / "x.json").mkdir()
    for output, message in (("x.html", "is a folder"), ("file/x.html", "lies below the file")):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=f"--output {message}"):
            write_report([scores / "mine.json"], tmp_path / output)
    changed = shutil.copytree(beir, tmp_path / "beir")
    (changed / "queries.jsonl").write_text(
        (changed / "queries.jsonl").read_text().replace("q0", "q0").replace("the", "a")
    )
    with (changed / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "title": "", "text": "more"}\n')
    with pytest.raises(UserError, match="--data is not what was measured"):
        write_report([scores / "mine.json"], tmp_path / "y.html", data=str(changed))


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
def test_a_browser_shows_the_page_without_an_error(scores, beir, tmp_path):
    path = write_report([scores / "mine.json"], tmp_path / "x.html", data=str(beir))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"--screenshot={tmp_path / 'x.png'}", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr
    assert (tmp_path / "x.png").stat().st_size > 5000
