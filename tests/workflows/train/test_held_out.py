"""Runs that validate and measure on a share of their own rows, and stop when it gets no better."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from places import SCRIPTS
from safetensors.torch import load_file

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks

from embedtrain.cli.printing import print_report
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import text_id
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import parse_result
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_files import START_IS_BEST, read_evaluation
from embedtrain.recipe.run_folder import open_run
from embedtrain.training.callbacks import list_checkpoints
from embedtrain.training.measuring import Validation
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.check import check
from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.prepare import open_data
from embedtrain.workflows.search import Searcher
from embedtrain.workflows.train import resume, train

FRACTIONS = ["validation={fraction: 0.1, every_steps: 3}", "evaluation={fraction: 0.2}"]


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def trusted_exports(monkeypatch):
    """Reloading each export in a fresh process takes long and is tested elsewhere."""
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)


@pytest.fixture(scope="module")
def many(tmp_path_factory, sentences) -> Path:
    """Rows of which three in four have a document of their own."""
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    rows = [
        {
            "query": " ".join(f"{text} {n % 4}".split()[-5:]),
            "positive": f"{text} {n // 4 % 40} house",
        }
        for n, text in enumerate(sentences)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def load(recipe, many):
    return lambda *changes: load_recipe(
        recipe, [f"data.sources=[{{path: {many}}}]", *FRACTIONS, *changes]
    )


def test_a_run_measures_on_rows_that_it_never_trains_on(load, tmp_path, monkeypatch, capsys):
    seen: list[torch.Tensor] = []
    build = BatchBuilder.__call__

    def watch(self, draw):
        batch = build(self, draw)
        seen.append(batch.relevance.query_ids)
        return batch

    monkeypatch.setattr(BatchBuilder, "__call__", watch)
    recipe = load()
    run = train(recipe, tmp_path / "run")
    printed = capsys.readouterr().err
    opened = open_data(recipe)
    held = {text_id(t) for t in (*opened.evaluation.queries, *opened.validation.queries)}
    assert len(held) == len(opened.evaluation.queries) + len(opened.validation.queries) > 40
    trained = set(torch.cat(seen).tolist())
    assert trained
    assert not trained & held
    assert all(sentence in " ".join(printed.split()) for sentence in opened.held_out)
    card = (run.model / "README.md").read_text(encoding="utf-8")
    assert all(f"positive document: {sentence}." in card for sentence in opened.held_out)
    (report,) = json.loads(run.data.read_text())
    assert report["held_out"] == opened.texts[0].held_out
    assert report["num_rows"] == opened.texts[0].length
    result = parse_result(json.loads(run.evaluation.read_text())["after"])
    assert (result.data.name, result.data.split) == ("many", "held-out")
    assert result.data.num_queries == len(opened.evaluation.queries)
    assert result.train_overlap["equal_queries"] == 0
    hits = Searcher(str(run.model)).search(opened.evaluation.queries[0])
    assert {hit.text for hit in hits} <= set(opened.evaluation.documents)


def test_check_states_what_is_held_out(load, capsys):
    report = check(load())
    print_report(report)
    printed = " ".join(capsys.readouterr().out.split())
    assert "evaluation.fraction 0.2 keeps" in printed
    assert "validation.fraction 0.1 keeps" in printed
    assert sum(report.sources[0][1].held_out.values()) > 0


def test_too_few_rows_stop_the_run_before_its_folder_is_made(recipe, tmp_path):
    with pytest.raises(UserError, match=r"^validation.fraction holds out . of .. queries"):
        train(load_recipe(recipe, ["validation={fraction: 0.05}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["validation={fraction: 0.1, path: x}"], "give either path or fraction"),
        (["validation={every_steps: 5}"], "give either path or fraction"),
        (["evaluation={fraction: 0.9}"], "less than or equal to 0.5"),
        (["trainer.patience=2"], "trainer.patience waits for a better validation"),
    ],
)
def test_mistakes_are_named(recipe, changes, message):
    with pytest.raises(UserError, match=message):
        load_recipe(recipe, changes)


SCORES = [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9]
"""What each validation finds, the first at the start: with patience 3 the sixth is the last, at step 10."""


@pytest.fixture
def scripted(monkeypatch):
    """Let validations at steps 0, 2, 4, ... find SCORES."""
    step = {"now": 0}
    measure = Validation.on_train_batch_end

    def on_train_batch_end(self, trainer, *rest):
        step["now"] = trainer.global_step
        measure(self, trainer, *rest)

    monkeypatch.setattr(Validation, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(
        "embedtrain.training.measuring.mean_scores",
        lambda _: {"ndcg_at_10": SCORES[step["now"] // 2], "recall_at_100": 1.0},
    )


PATIENT = ["trainer.patience=3", "trainer.steps=16", "trainer.checkpoint_every=3",
           "validation={fraction: 0.1, every_steps: 2}", "evaluation=null"]  # fmt: skip


def exports_the_best(run):
    best = torch.load(run.checkpoints / "best.ckpt")
    exported = load_file(run.model / "model.safetensors")
    name = next(iter(exported))
    same = torch.equal(exported[name], best["state_dict"][f"model.backbone.{name}"])
    return best["global_step"] == 4 and same


def validated(run):
    with run.metrics.open() as file:
        return [int(r["step"]) for r in csv.DictReader(file) if r["val/ndcg_at_10"]]


@pytest.mark.parametrize(("patience", "words"), [(1, "in 1 validation;"), (2, "in 2 validations;")])
def test_a_run_that_stops_says_how_long_it_waited(
    load, tmp_path, scripted, capsys, patience, words
):
    train(load(*PATIENT, f"trainer.patience={patience}"), tmp_path / "run")
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_run_without_improvement_stops_and_exports_its_best(load, tmp_path, scripted, capsys):
    run = train(load(*PATIENT), tmp_path / "run")
    assert validated(run) == [0, 2, 4, 6, 8, 10]
    assert "Stopped at step 10" in (said := capsys.readouterr().err)
    assert "in 3 validations;" in said
    assert list_checkpoints(run.checkpoints)[-1].name == "step-00000010.ckpt"
    assert exports_the_best(run)


def test_a_run_that_only_gets_worse_exports_its_start_and_says_so(
    load, tmp_path, scripted, capsys, monkeypatch
):
    monkeypatch.setitem(globals(), "SCORES", [0.6, *SCORES[1:6]])
    asked = load(*PATIENT, "trainer.patience=4", "evaluation={fraction: 0.2}")
    run = train(asked, tmp_path / "run")
    assert validated(run) == [0, 2, 4, 6, 8]
    assert START_IS_BEST in " ".join(capsys.readouterr().err.split())
    start, exported = (
        load_file(Path(folder) / "model.safetensors")
        for folder in (asked.model.backbone, run.model)
    )
    assert all(torch.equal(start[name], weights) for name, weights in exported.items())
    assert START_IS_BEST in (run.model / "README.md").read_text()
    write_report([run.path], tmp_path / "page.html")
    assert START_IS_BEST in (tmp_path / "page.html").read_text()
    before, after = read_evaluation(run)
    assert before.per_query == after.per_query


def train_and_note(recipe, folder, monkeypatch):
    """Train on a rank; note what it held out, trained on and stopped at. All but the first score worse and better."""
    noted = {"trained": []}
    build, measure = BatchBuilder.__call__, Validation.measure

    def watch(self, draw):
        batch = build(self, draw)
        noted["trained"] += batch.relevance.query_ids.tolist()
        return batch

    def note(self, trainer, module):
        noted["task"] = (self.task.fingerprint, self.task.queries, self.task.documents)
        scores = measure(self, trainer, module)
        noted["stopped"] = (trainer.global_step, trainer.should_stop, self.misses)
        return scores

    monkeypatch.setattr(BatchBuilder, "__call__", watch)
    monkeypatch.setattr(Validation, "measure", note)
    if (rank := os.environ.get("RANK", "0")) != "0":
        monkeypatch.setitem(globals(), "SCORES", [1 - score for score in SCORES])
    train(recipe, folder)
    (folder.parent / f"rank-{rank}.json").write_text(json.dumps(noted))


def test_ranks_hold_out_the_same_rows_stop_together_and_export_the_best(
    load, tmp_path, scripted, monkeypatch
):
    alone = train(load(*PATIENT), tmp_path / "alone")
    held = open_data(load(*PATIENT)).validation
    shared = load(*PATIENT, "trainer.devices=2", f"data.cache={tmp_path / 'cold'}")
    on_ranks(2, train_and_note, shared, tmp_path / "ranks", monkeypatch)
    run, _ = open_run(tmp_path / "ranks")
    notes = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    for note in notes:
        assert note["task"] == [held.fingerprint, held.queries, held.documents]
        assert note["stopped"] == [10, True, 3]
        assert note["trained"]
        assert not set(note["trained"]) & set(map(text_id, held.queries))
    assert notes[0]["trained"] != notes[1]["trained"]
    assert validated(run) == validated(alone)
    assert exports_the_best(run)


def test_a_run_killed_while_it_waits_stops_where_the_unbroken_one_does(load, tmp_path, scripted):
    whole = train(load(*PATIENT), tmp_path / "whole")

    with pytest.MonkeyPatch.context() as patch:
        step_of = RetrievalModule.training_step

        def training_step(self, batch, index):
            if (
                self.trainer.global_step == 9
            ):  # after the second miss; the last checkpoint is of step 9
                raise KilledError
            return step_of(self, batch, index)

        patch.setattr(RetrievalModule, "training_step", training_step)
        with pytest.raises(KilledError):
            train(load(*PATIENT), tmp_path / "killed")
    run = resume(tmp_path / "killed")
    assert validated(run) == validated(whole)
    ours, theirs = (torch.load(list_checkpoints(r.checkpoints)[-1]) for r in (run, whole))
    assert ours["global_step"] == theirs["global_step"] == 10
    for key, value in theirs["state_dict"].items():
        assert torch.equal(value, ours["state_dict"][key])
    assert ours["callbacks"]["Validation"] == theirs["callbacks"]["Validation"]
    assert ours["callbacks"]["Validation"] == {"best": 0.5, "misses": 3, "measured": 10}


def test_a_run_that_stopped_and_was_killed_before_its_export_trains_no_further(
    load, tmp_path, scripted, monkeypatch
):
    run = train(load(*PATIENT), tmp_path / "run")
    shutil.rmtree(run.model)
    monkeypatch.setattr("embedtrain.workflows.train.fit", None)
    assert resume(tmp_path / "run").model.is_dir()
