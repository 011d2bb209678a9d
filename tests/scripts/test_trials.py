"""Trials: what is finished is not done again, sets are made small without their answers, models go back half way."""

import importlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import SCRIPTS

NAMES = ("trials", "compare_fit", "compare_synthesis", "tune_defaults")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, bert: str) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    found = {name: importlib.import_module(name) for name in NAMES}
    for module in found.values():
        monkeypatch.setattr(module, "MODEL", bert, raising=False)
        lengths = {"query": {"length": 16}, "document": {"length": 32}}
        monkeypatch.setattr(module, "LENGTHS", lengths, raising=False)
    yield found
    for name in NAMES:
        sys.modules.pop(name)


@pytest.fixture
def data(scripts: dict[str, ModuleType], beir: Path, tmp_path: Path) -> object:
    folder = tmp_path / "data" / "retrieval"
    folder.mkdir(parents=True)
    (folder / "toy").symlink_to(beir, target_is_directory=True)
    return scripts["trials"].Data(folder.parent)


def test_a_finished_run_is_not_done_again(scripts, tmp_path):
    path, calls = tmp_path / "runs.jsonl", []

    def work() -> dict[str, int]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"found": len(calls)}

    ledger = scripts["trials"].Ledger
    assert ledger(path).once("one", work)["found"] == 1
    with pytest.raises(KeyboardInterrupt):
        ledger(path).once("two", work)
    assert ledger(path).once("one", work)["found"] == 1
    assert ledger(path).once("two", work)["found"] == 3
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == ["one", "two"]


def test_a_small_set_keeps_what_is_relevant_and_its_rivals(scripts, data, monkeypatch):
    trials = scripts["trials"]
    monkeypatch.setattr(trials, "QUERIES", 2)
    monkeypatch.setattr(trials, "RIVALS", 1)
    task = data.task("toy")
    judged = {key for documents in task.qrels.values() for key in documents}
    assert len(task.queries) == 2
    assert judged <= set(task.document_ids)
    assert len(task.document_ids) <= len(judged) + 2


def test_a_blend_of_nothing_is_the_start(scripts, bert, tmp_path):
    trials = scripts["trials"]
    moved = trials.encoder_of(bert)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(1.0)
    trials.save_encoder(moved, tmp_path / "moved")
    start = dict(trials.encoder_of(bert).named_parameters())
    for share in (0.0, 0.25, 1.0):
        for name, weight in trials.blended(tmp_path / "moved", share).named_parameters():
            torch.testing.assert_close(weight, start[name] + share)


def test_a_run_is_trained_and_scored_once(scripts, data, tmp_path):
    trials = scripts["trials"]
    bench = trials.Bench(data, trials.Ledger(tmp_path / "runs.jsonl"), tmp_path / "models")
    rows = [{"query": f"red cat {n}", "positive": f"the small dog {n}"} for n in range(8)]
    settings = {"batch": 4, "steps": 1, "precision": "fp32"}
    for _ in range(2):
        work = partial(trials.train_rows, rows, 0, settings)
        bench.train("toy one 0", work, ["toy"], [50])
        scores = bench.score("toy one 0", "toy", 50)
    assert set(scores) == set(data.task("toy").query_ids)
    scored = [f"score toy one 0 @{share} on toy" for share in (100, 50)]
    assert list(bench.ledger.runs) == ["train toy one 0", *scored]
    assert bench.over_seeds("toy one", [0, 1], "toy", 50) == [scores]


def test_rules_give_a_query_a_document_and_a_teacher_its_order(scripts):
    synthesis = scripts["compare_synthesis"]
    document = synthesis.Document
    texts = [
        f"The {color} cat runs over house {color}. It sleeps near the tree."
        for color in ("red", "blue")
    ]
    titled = document("a", "A red cat at large", f"{texts[0]} A bird jumps under the dog.")
    documents = [titled, document("b", "", f"{texts[1]} A dog jumps under the bird.")]
    rows = synthesis.rows_of(documents, synthesis.ARMS["structure"], 8)
    assert [row["query"] for row in rows] == [
        "A red cat at large",
        "The blue cat runs over house blue",
    ]
    many = [{"query": f"cat {n}", "positive": f"cat {n} near the tree"} for n in range(40)]
    for row in synthesis.taught(many, 0):
        assert len(row["negatives"]) == synthesis.LIST == len(row["scores"]) - 1
        assert row["positive"] not in row["negatives"]
