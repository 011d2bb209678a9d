"""Two ranks train of every form of cross-encoder what one trains, and share the work of the first stage."""

import csv
import json
import re
import sys

import numpy as np
import pytest
import torch
from backbone_toys import T5
from pair_toys import NO_DROPOUT, marked_rows, save_answering, save_classifier
from places import SCRIPTS
from rank_toys import exported_weights
from transformers import T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(SCRIPTS))
from distributed_cases import on_ranks

from embedtrain.data.sources import load_task
from embedtrain.encoding import cache as cached
from embedtrain.encoding.shards import current_shard
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.settings import ValidationConfig
from embedtrain.workflows.train import train
from embedtrain.workflows.validation import first_lists

NAMED = "{query: query, positive: positive, label: label}"
MINED = "{retriever: BERT, mining: {num_negatives: 3, rule: {kind: none}}}"
FORMS = {
    "biases": ["model.train=biases", "trainer.learning_rate=0.01"],
    "exits": ["model.exits=[1]", "objective={name: multi_exit, inner: {name: info_nce}}"],
    "classes": [
        "model.classes=[left, right]", "objective={name: pair_classification}", "model.backbone=BERT",
        f"data.sources=[{{path: ROWS, columns: {NAMED}}}]",
    ],
    "negatives": [
        f"data.sources=[{{path: BEIR, split: test, negatives: {MINED}}}]", "trainer.batch_size=4",
        "data.random_negatives=1",
    ],
    "first word": [  # monoT5
        "model.backbone=T5", "model.scorer=yes_no", "model.yes_word=red", "model.no_word=cat", "model.query_length=null",
        "model.template='query: {query} passage: {document} near:</s>'", "trainer.chunk_tokens=150",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = [
        row | {"label": "right" if n % 3 else "left"} for n, row in enumerate(marked_rows(40, 0))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**T5))
    return save_answering(tmp_path_factory.mktemp("t5"), model)


@pytest.fixture(scope="module")
def sections(rows, tmp_path_factory):
    start = save_classifier(tmp_path_factory.mktemp("start"), "bert")
    assert NO_DROPOUT, "the ranks would draw other masks"
    return {
        "data": {"sources": [{"path": str(rows)}]},
        "model": {
            "kind": "cross_encoder", "backbone": str(start), "query_length": 8, "length": 32,
        },
        "objective": {"name": "info_nce"},
        "trainer": {
            "steps": 3, "batch_size": 8, "chunk_tokens": 90, "learning_rate": 1e-3, "rematerialize": True,
        },
    }  # fmt: skip


def train_on_rank(sections, overrides, folder):
    train(load_recipe(sections, overrides), folder)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("form", FORMS)
def test_two_ranks_train_what_one_trains(form, sections, rows, beir, bert, t5, tmp_path):
    known = {"ROWS": rows, "BEIR": beir, "BERT": bert, "T5": t5}
    asked = FORMS[form]
    for name, value in known.items():
        asked = [one.replace(name, str(value)) for one in asked]
    weights = []
    for ranks in (1, 2):
        folder, own = tmp_path / str(ranks), [f"data.cache={tmp_path / f'cache{ranks}'}"]
        plain = ["model.dropout=0.0", *asked, *own]
        if ranks == 1:
            train(load_recipe(sections, plain), folder)
        else:
            shared = [*plain, "trainer.devices=2", "trainer.strategy=ddp"]
            on_ranks(2, train_on_rank, sections, shared, folder)
        weights.append(exported_weights(folder))
    alone, ours = weights
    assert alone.keys() == ours.keys()
    # A key's bias changes no attention, and the head's no softmax over candidates: their gradients are rounding, of
    # which Adam makes whole steps.
    felt = [name for name in ours if not name.endswith(("key.bias", "classifier.bias"))]
    error = sum(float((ours[name] - alone[name]).square().sum()) for name in felt)
    norm = sum(float(value.square().sum()) for value in alone.values())
    assert (error / norm) ** 0.5 < 1e-4


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.prove), "fsdp"])
def test_two_ranks_validate_and_split_weights_as_one_does(strategy, pair_sections, beir, tmp_path):
    validation = f"validation={{path: {beir}, split: dev, every_steps: 2, top: 7}}"
    plain = ["model.dropout=0.0", "trainer.steps=4", validation]
    train(load_recipe(pair_sections, plain), tmp_path / "alone")
    shared = [*plain, "trainer.devices=2", f"trainer.strategy={strategy}"]
    on_ranks(2, train_on_rank, pair_sections, shared, tmp_path / "ranks")
    ours, theirs = exported_weights(tmp_path / "ranks"), exported_weights(tmp_path / "alone")
    error = sum(float((value - theirs[name]).square().sum()) for name, value in ours.items())
    norm = sum(float(value.square().sum()) for value in theirs.values())
    assert (error / norm) ** 0.5 < 1e-4
    measured = [figures_of(tmp_path / name / "metrics.csv") for name in ("ranks", "alone")]
    assert measured[0] == pytest.approx(measured[1])


def figures_of(path):
    """What validation said, of the rows that have it."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/ndcg_at_10"]]
    return {f"{row['step']} {k}": float(v) for row in rows for k, v in row.items() if "val/" in k}


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("first", ["bm25", "model", "run"])
def test_validation_orders_what_a_first_stage_found(
    first, pair_sections, beir, bert, tmp_path, capsys
):
    if first == "run":
        lines = [f"q{q} Q0 d{d} {d} {9 - d} x" for q in range(10) for d in range(q % 3 + 1)]
        (tmp_path / "first.trec").write_text("\n".join(lines))
    stage = {"bm25": "null", "model": bert, "run": f"'run:{tmp_path}/first.trec'"}[first]
    asked = f"{{path: {beir}, split: dev, every_steps: 2, first_stage: {stage}, top: 5}}"
    run = train(load_recipe(pair_sections, [f"validation={asked}"]), tmp_path / "run")
    figures = figures_of(run.metrics)
    steps = sorted({name.split()[0] for name in figures})
    assert steps == ["0", "2", "4", "6"]
    names = ("ndcg_at_10", "mrr_at_10", "recall_at_10")
    assert all(f"{step} val/{name}" in figures for step in steps for name in names)
    firsts = {figures[f"{step} val/first_ndcg_at_10"] for step in steps}
    assert len(firsts) == 1, "the first stage is not trained"
    for step in steps:
        found = (figures[f"{step} val/{prefix}recall_at_10"] for prefix in ("", "first_"))
        assert len(set(found)) == 1, "order changes no recall of the whole list"
    assert (run.checkpoints / "best.ckpt").is_file()
    assert re.search(r"nDCG@10 is 0\.\d+ as they come", " ".join(capsys.readouterr().err.split()))


def lists_on_rank(config, task, cache, folder):
    encode, seen = cached.encode_pieces, []

    def counted(model, wanted, side, **settings):
        pieces = list(wanted)
        seen.append(sum(map(len, pieces)))
        return encode(model, iter(pieces), side, **settings)

    cached.encode_pieces = counted
    found = first_lists(config, task, cache)
    (folder / f"texts{current_shard().rank}").write_text(str(sum(seen)))
    return found.indices


@pytest.mark.usefixtures("forked")
def test_ranks_encode_the_corpus_of_a_first_stage_once(beir, bert, tmp_path):
    task = load_task(str(beir), "test")
    config = ValidationConfig(path=str(beir), first_stage=bert, top=5)
    alone = first_lists(config, task, tmp_path / "alone")
    shared = on_ranks(2, lists_on_rank, config, task, tmp_path / "shared", tmp_path)
    assert np.array_equal(shared, alone.indices)
    counts = [int(file.read_text()) for file in tmp_path.glob("texts*")]
    assert len(counts) == 2
    assert sum(counts) == len(task.queries) + len(task.documents)
