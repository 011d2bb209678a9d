"""What the page of a report says, of results and of runs."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from page_reader import read, shown
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Price
from embedtrain.evaluation.results.report import compare, summarise
from embedtrain.evaluation.results.result import EvaluatedData, Ties, load_result, write_result
from embedtrain.evaluation.results.wording import describe_gain, system_name
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.recipe.retrieval import Recipe, dump_recipe
from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.evaluate.report_queries import (
    find_changes,
    find_suspects,
    wins_and_losses,
)


def test_a_query_without_the_error_of_the_baseline_is_won():
    data = EvaluatedData(name="x", split="t", fingerprint="f", num_queries=3, num_documents=3)
    ours, theirs = (
        summarise({"xsim_error": dict(zip("abc", errors, strict=True))}, data, num_resamples=9)
        for errors in ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
    )
    wins, losses = wins_and_losses(find_changes(ours, theirs, None))
    assert [one.item for one in wins] == ["a"]
    assert [one.item for one in losses] == ["b"]


def test_a_page_shows_scores_pictures_wins_losses_and_suspects(scores, beir, tmp_path):
    arguments = ["report", str(scores / "mine.json"), str(scores / "small.json")]
    more = ["--baseline", str(scores / "base.json"), "--data", str(beir)]
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, [*arguments, *more, "--output", str(output)])
    assert done.exit_code == 0, done.output
    reader = read(output)
    assert reader.texts.count("Scores") == 1
    text = " ".join(" ".join(reader.texts).split())
    mine, base = (
        system_name(load_result(scores / f"{one}.json").model) for one in ("mine", "base")
    )
    for said in (
        f"Evaluation of {mine}",
        f"{base} {mine} {mine}, dim 8",
        f"with {base} to",
        "95 % interval",
        f"Compared with {base}, ",
        f"Better than {base}",
        "Suspected label errors",
    ):
        assert said in text
    order = ["nDCG@10", "Scores", "Cost", "Queries", "Suspected label errors"]
    places = [reader.texts.index(one) for one in order[1:]]
    assert places == sorted(places)
    drawn = output.read_text().count('<svg role="img"')
    assert drawn >= 3, "scores, and quality against costs that differ"
    for hidden in ("ndcg_at_10", str(scores), "Not drawn", "None", "bytes_per"):
        assert hidden not in text
    assert reader.addresses == []
    assert not re.search(r"https?:(?!//www.w3.org)", output.read_text())
    facts = json.loads(output.with_suffix(".json").read_text())
    assert facts["mine"]["ndcg_at_10"]["value"] >= 0
    task = open_task(str(beir))
    for change in facts["wins"] + facts["losses"]:
        assert change["text"] == task.texts[change["item"]]
        relevant = task.task.qrels[change["item"]]
        place = task.task.documents.index(change["document"])
        assert relevant[task.task.document_ids[place]] == max(relevant.values())
    assert all(one["value"] > one["baseline"] for one in facts["wins"])
    assert all(one["value"] < one["baseline"] for one in facts["losses"])


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
        *("99th percentile 62.5 ms", "index, whole 123 KB", "memory, peak 7.65 MB"),
        *("at 0 an hour, million documents 12.25", "one by one 34.50"),
        "20.0% of the test queries are among the training queries",
        "30.0% share 13",
        "40.0% of the queries are tied at rank 10; expected with ties in random order: nDCG@10 0.321",
    ):
        assert row in text
    old = replace(cost, query_latency=replace(latency, p99_seconds=None), index_bytes=None)
    bare = source.model_copy(
        update={"efficiency": replace(old, price=None, peak_memory_bytes=None)}
    )
    text = shown(bare, tmp_path)
    assert "index, per document" in text
    for absent in ("99th", "whole", "peak", "an hour", "None", "training queries", "tied"):
        assert absent not in text
    assert "Cost" not in shown(source.model_copy(update={"efficiency": None}), tmp_path)


def test_results_of_one_model_and_name_stay_apart(scores, tmp_path):
    paths = []
    for name in ("mine", "other", "base"):
        (tmp_path / name).mkdir()
        result = load_result(scores / ("base.json" if name == "base" else "mine.json"))
        changed = {"efficiency": None} if name == "other" else {}
        paths.append(tmp_path / name / "beir.test.json")
        write_result(result.model_copy(update=changed), paths[-1])
    output = write_report(paths[:2], tmp_path / "page.html", baseline=paths[2])
    text = " ".join(read(output).texts)
    assert "Evaluation of mine" in text
    assert "metric base mine other" in " ".join(text.split()), "the folders tell them apart"
    assert "Compared with base, " in text
    facts = json.loads(output.with_suffix(".json").read_text())
    for name, path in zip(("mine", "other"), paths, strict=False):
        assert facts[name] == json.loads(path.read_text())
    assert facts["mine"] != facts["other"]
    texts = read(write_report(paths[:2], output, baseline=paths[1])).texts
    assert "Compared with other, " in " ".join(texts), "a baseline keeps the name of its scores"


def test_a_baseline_may_be_one_of_the_results_and_a_stored_comparison_is_shown(scores, tmp_path):
    mine, base = (load_result(scores / f"{one}.json") for one in ("mine", "base"))
    paths = [scores / "mine.json", scores / "base.json"]
    text = " ".join(read(write_report(paths, tmp_path / "x.html", baseline=paths[1])).texts)
    name = system_name(base.model)
    assert f"Compared with {name}, " in text
    compared = compare(mine, base, "scores/base.json")
    text = shown(compared, tmp_path)
    assert "metric base" in text
    for words in (describe_gain(compared, "ndcg_at_10", "with base"), "difference p"):
        assert words in text
    difference = compared.comparison.metrics["mrr_at_10"].difference
    assert f"MRR@10 {mine.metrics['mrr_at_10'].value - difference:.3f} " in text


def test_results_on_other_data_have_a_part_of_their_own(scores, tmp_path):
    mine = load_result(scores / "mine.json")
    other = mine.model_copy(
        update={"data": mine.data.model_copy(update={"name": "elsewhere", "fingerprint": "e" * 16})}
    )
    write_result(other, tmp_path / "other.json")
    path = write_report([scores / "mine.json", tmp_path / "other.json"], tmp_path / "x.html")
    texts = read(path).texts
    assert texts.index("beir test" if "beir test" in texts else f"{mine.data.name} test") < (
        texts.index("elsewhere test")
    )
    assert path.read_text().count('<svg role="img"') == 2, "scores of each; no costs across data"


def test_an_unjudged_document_above_every_positive_is_a_suspect(beir):
    task = open_task(str(beir))
    run = {query: {f"d{query[1:]}": 1.0, "d29": 0.5} for query in task.texts}
    run["q3"] = {"d3": 0.5, "d29": 0.9, "d28": 0.7}
    (suspect,) = find_suspects(task, run)
    assert suspect.query == task.texts["q3"]
    assert suspect.margin == pytest.approx(0.4)
    assert suspect.document == task.task.documents[29]


def test_a_run_folder_shows_curves_and_a_recipe_that_cannot_be_read_as_it_is(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("description: <b>bold</b>\n")
    (run / "checkpoints").mkdir()
    (run / "metrics.csv").write_text(
        "step,train/loss,lr,val/ndcg_at_10\n1,2.5,0.1,\n2,1.5,0.1,0.5\n"
    )
    path = write_report([run], tmp_path / "run.html")
    assert "description: <b>bold</b>" in " ".join(read(path).texts), "escaped, so it is text"
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["curves"] == {"train/loss": [[1, 2.5], [2, 1.5]], "val/ndcg_at_10": [[2, 0.5]]}
    assert "Training, loss" in path.read_text()
    assert "Validation" not in path.read_text(), "one point is no curve"


def test_a_run_opens_with_what_it_gained_and_ends_with_what_is_not_a_default(
    scores, beir, tmp_path
):
    before, after = (load_result(scores / f"{one}.json") for one in ("base", "mine"))
    after = compare(after, before, "before training")
    run = tmp_path / "my run"
    (run / "checkpoints").mkdir(parents=True)
    recipe = Recipe.model_validate(
        {
            "description": "A toy.",
            "data": {"sources": [{"path": "pairs.jsonl"}]},
            "model": {
                "backbone": "runs/first/model",
                "pooling": "mean",
                "similarity": "dot",
                "query": {"prompt": "", "length": 24},
            },
            "objective": {"name": "info_nce", "temperature": 0.07},
            "trainer": {"epochs": 1},
            "evaluation": {"path": str(beir)},
        }
    )
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    both = {"before": before.to_json(), "after": after.to_json()}
    (run / "evaluation.json").write_text(json.dumps(both))
    (run / "data.json").write_text(
        '[{"num_rows": 1234, "num_documents": 99, "fingerprint": "0123456789abcdef"}]'
    )
    kept_out = "evaluation.fraction 0.05 keeps 20 of 400 queries (21 rows) out of training"
    summary = {"held_out": [kept_out], "filled": ["query.prompt", "query.length", "pooling"]}
    (run / "summary.json").write_text(json.dumps(summary))
    path = write_report([run], tmp_path / "run.html")
    texts = read(path).texts
    text = " ".join(" ".join(texts).split())
    assert f"Held out by query and by positive document: {kept_out}." in text
    opening = text.index(describe_gain(after, "ndcg_at_10", "before training"))
    assert text.index("my run") < opening < text.index("Scores")
    assert "From first, in 1 epoch of 64 queries, with info_nce." in text
    assert "pairs.jsonl train 1,234 99 0123456789abcdef" in text
    settings = text[text.index("Settings that differ from the defaults") :]
    assert "temperature: 0.07" in settings
    assert "similarity: dot" in settings, "the recipe asked for it"
    for default in ("learning_rate", "prompt", "pooling", "length: 24"):
        assert default not in settings
    assert "<details>" in path.read_text()
    assert "<details open" not in path.read_text()
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["after"] == both["after"]
    queries = open_task(str(beir)).texts
    assert {one["text"] for one in facts["wins"]} <= set(queries.values()), "the run knows its data"
    assert facts["wins"] or facts["losses"]
    against = write_report([run], tmp_path / "run.html", baseline=scores / "small.json")
    assert "Compared with small, " in " ".join(read(against).texts)


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
    for output, message in (("x.html", "is a folder"), ("file/x.html", "lies below a file")):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=message):
            write_report([scores / "mine.json"], tmp_path / output)
    changed = shutil.copytree(beir, tmp_path / "beir")
    (changed / "queries.jsonl").write_text(
        (changed / "queries.jsonl").read_text().replace("q0", "q0").replace("the", "a")
    )
    with (changed / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "title": "", "text": "more"}\n')
    with pytest.raises(UserError, match="--data is not what was measured"):
        write_report([scores / "mine.json"], tmp_path / "y.html", data=str(changed))
