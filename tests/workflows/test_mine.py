"""The whole command on a tiny model: the same bytes whatever happens in between."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import fork, signal_on_call
from kills import small_blocks

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding import cache as cache_module
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.mining.miner import Miner
from embedtrain.mining.settings import MiningConfig
from embedtrain.mining.task import load_mining_task
from embedtrain.models.build import load_dense
from embedtrain.workflows import mine as workflow
from embedtrain.workflows.mine import mine, mine_task

OUTPUTS = ("negatives.jsonl", "train.jsonl", "suspects.md")
CONFIG = MiningConfig.model_validate(
    {
        "sources": [{"kind": "dense", "quota": 2}, {"kind": "bm25"}],
        "num_negatives": 4,
        "rule": {"kind": "margin", "margin": 0.001},  # an untrained model finds all texts alike
        "sampling": {"kind": "uniform", "pool": 8},
        "shortfall": "random_fill",
    }
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(workflow, "QUERIES_PER_PART", 3)


@pytest.fixture(scope="module")
def mined(bert, beir, tmp_path_factory) -> Path:
    """What one undisturbed process writes."""
    output = tmp_path_factory.mktemp("mined") / "out"
    return mine(bert, str(beir), output, CONFIG, split="test").path


def bytes_of(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_query_gets_its_negatives_and_no_positive_is_among_them(mined, beir):
    task = load_mining_task(str(beir), "test")
    rows = rows_of(mined / "negatives.jsonl")
    assert [row["qid"] for row in rows] == task.query_ids
    for row in rows:
        names = [negative["id"] for negative in row["neg"]]
        assert len(set(names)) == 4
        assert not {positive["id"] for positive in row["pos"]} & set(names)


def test_the_training_file_is_a_source_with_scores(mined):
    examples = list(open_source(SourceConfig(path=str(mined / "train.jsonl"))).examples())
    assert len(examples) == 10
    rows = rows_of(mined / "negatives.jsonl")
    for example, row in zip(examples, rows, strict=True):
        assert len(example.negatives) == 4
        assert example.scores[0] == row["pos"][0]["score"]
        assert example.scores[1:] == tuple(negative["score"] for negative in row["neg"])


def test_the_manifest_says_what_was_done(mined):
    manifest = json.loads((mined / "manifest.json").read_text())
    assert manifest["outcome"]["num_queries"] == 10
    assert manifest["outcome"]["num_negatives"] == 40
    assert manifest["outcome"]["dropped"]["positive"] >= 10
    assert 0 < manifest["outcome"]["mean_score_ratio"] < 1
    assert manifest["sha256"] == bytes_of(mined)
    assert not (mined / "parts").exists()


def test_what_was_kept_out_is_written_for_a_judge_and_changes_nothing_else(
    mined, bert, beir, tmp_path
):
    asked = CONFIG.model_copy(update={"num_rejected": 2, "num_negatives": 1, "depth": 8})
    plain = asked.model_copy(update={"num_rejected": 0})
    folders = [
        mine(bert, str(beir), tmp_path / name, config, split="test")
        for name, config in (("asked", asked), ("plain", plain))
    ]
    assert bytes_of(folders[0].path) == bytes_of(folders[1].path)
    assert not folders[1].rejected.exists()
    task = load_mining_task(str(beir), "test")
    rows, ids = rows_of(folders[0].rejected), rows_of(folders[0].negatives)
    assert [row["query_id"] for row in rows] == [row["qid"] for row in ids]
    found = 0
    for row, mined_row in zip(rows, ids, strict=True):
        found += len(row["rejected"])
        assert len(row["rejected"]) == min(2, mined_row["dropped"].get("score", 0))
        taken = {one["id"] for one in [*mined_row["pos"], *mined_row["neg"]]}
        for one in row["rejected"]:
            assert one["text"] == task.documents[task.row_of_document[one["id"]]]
            assert one["reason"] == "score"
            assert one["id"] not in taken
            assert 1 <= one["rank"] <= 8
    assert found
    manifest = json.loads(folders[0].manifest.read_text())
    digest = hashlib.sha256(folders[0].rejected.read_bytes()).hexdigest()
    assert manifest["sha256"]["rejected.jsonl"] == digest


@pytest.mark.prove
def test_hash_seed_and_threads_change_no_byte(mined, bert, beir, tmp_path):
    """This process has one thread and a random hash seed; the other two threads and a fixed one."""
    overrides = [
        "num_negatives=4", "sampling={kind: uniform, pool: 8}", "shortfall=random_fill",
        "rule={kind: margin, margin: 0.001}",
        "sources=[{kind: dense, quota: 2}, {kind: bm25}]",
    ]  # fmt: skip
    command = ["mine", bert, *overrides, "--data", beir, "--split", "test", "--output", "out"]
    environment = os.environ | {
        "PYTHONHASHSEED": "1",
        "OMP_NUM_THREADS": "2",
        "EMBEDTRAIN_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "embedtrain", *map(str, command)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "10 queries, 40 negatives" in done.stdout
    assert bytes_of(tmp_path / "out") == bytes_of(mined)


@pytest.mark.parametrize("at", ["encoding", "mining", "joining"])
def test_a_killed_mining_goes_on_and_ends_with_the_same_bytes(
    mined, bert, beir, tmp_path, at, monkeypatch
):
    small_blocks(monkeypatch)
    output, cache = tmp_path / "out", tmp_path / "cache"
    reference = mine(
        bert, str(beir), tmp_path / "reference", CONFIG, split="test", cache=cache / "r"
    )
    target, name, call = {
        "encoding": (cache_module, "_checksum", 3),
        "mining": (Miner, "mine", 3),
        "joining": (workflow, "render_suspects", 1),
    }[at]

    def work():
        signal_on_call(target, name, call)
        mine(bert, str(beir), output, CONFIG, split="test", cache=cache)

    assert fork(work).returncode == -signal.SIGKILL
    assert not (output / "manifest.json").exists()
    mine(bert, str(beir), output, CONFIG, split="test", cache=cache)
    assert bytes_of(output) == bytes_of(reference.path)


def test_what_is_finished_is_not_done_again(bert, beir, tmp_path, monkeypatch):
    output = tmp_path / "out"
    mine(bert, str(beir), output, CONFIG, split="test")
    monkeypatch.setattr(Miner, "mine", None)
    mine(bert, str(beir), output, CONFIG, split="test")
    other = CONFIG.model_copy(update={"seed": 1})
    with pytest.raises(UserError, match="was mined with other settings, data or weights"):
        mine(bert, str(beir), output, other, split="test")


def test_ranks_share_the_queries_and_write_the_same_bytes(mined, bert, beir, tmp_path):
    task, model = load_mining_task(str(beir), "test"), load_dense(bert)
    cache = tmp_path / "cache"

    def rank_one():
        os.environ["RANK"] = "1"  # it works under the lock of rank 0
        mine_task(model, task, tmp_path / "out", CONFIG, cache=cache, shard=Shard(1, 2))

    process = multiprocessing.get_context("fork").Process(target=rank_one)
    process.start()
    mine_task(model, task, tmp_path / "out", CONFIG, cache=cache, shard=Shard(0, 2))
    process.join(60)
    assert process.exitcode == 0
    assert bytes_of(tmp_path / "out") == bytes_of(mined)


def test_a_changed_weight_misses_the_cache(bert, sentences, tmp_path):
    model = load_dense(bert)
    key = model_key(model)
    before = np.array(embed_once(model, key, sentences[:20], "document", tmp_path))
    assert len(list((tmp_path / "embeddings").iterdir())) == 1
    with torch.no_grad():
        model.backbone.encoder.layer[1].output.dense.bias[3] += 1e-3
    changed = model_key(model)
    assert changed != key
    after = embed_once(model, changed, sentences[:20], "document", tmp_path)
    assert len(list((tmp_path / "embeddings").iterdir())) == 2
    assert np.abs(before - after).max() > 0


def test_a_training_file_is_mined_among_its_own_documents(bert, pairs, tmp_path):
    folder = mine(bert, str(pairs), tmp_path / "out", MiningConfig(num_negatives=2))
    rows = rows_of(folder.training)
    texts = {text for row in rows for text in row["positives"]}
    assert len(rows) == len({row["query"] for row in rows})
    assert any(set(row["negatives"]) & texts for row in rows), "other queries' positives"


@pytest.mark.parametrize("index", [{"name": "exact"}, {"name": "fde"}])
def test_late_interaction_mines_resumes_and_searches_an_index(
    late_interaction, beir, tmp_path, index, monkeypatch
):
    small_blocks(monkeypatch)
    source = {"kind": "late_interaction", "index": index, "min_recall": 0.5}
    config = MiningConfig.model_validate(
        {
            "sources": [source],
            "depth": 10 if index["name"] == "exact" else 200,
            "num_negatives": 3,
            "rule": {"kind": "none"},
        }
    )
    folder = mine(late_interaction, str(beir), tmp_path / "out", config, split="test")
    rows = rows_of(folder.negatives)
    for row in rows:
        scores = [negative["score"] for negative in row["neg"]]
        assert scores == sorted(scores, reverse=True)
    assert sum(len(row["neg"]) for row in rows) == 30
    default = MiningConfig(num_negatives=3, rule=config.rule)
    plain = mine(late_interaction, str(beir), tmp_path / "plain", default, split="test")
    if index["name"] == "exact":
        assert [row["neg"] for row in rows_of(plain.negatives)] == [row["neg"] for row in rows]


def test_a_source_of_the_other_kind_of_model_is_refused(late_interaction, beir, tmp_path):
    config = MiningConfig.model_validate({"sources": [{"kind": "dense"}]})
    with pytest.raises(UserError, match="searches with a model of another kind"):
        mine(late_interaction, str(beir), tmp_path / "out", config, split="test")


def test_queries_that_repeat_a_guarded_one_are_dropped(bert, beir, tmp_path):
    guard = {"path": str(beir), "split": "dev", "exclude_positives": True}
    config = MiningConfig.model_validate({"guard": guard})
    with pytest.raises(UserError, match="drops every query"):
        mine(bert, str(beir), tmp_path / "out", config, split="test")


def test_a_mistake_in_a_setting_is_named(embedtrain_main, bert, beir, tmp_path):
    for override, message in {
        "num_negativs=3": "num_negativs is an unknown key. Did you mean num_negatives?",
        "depth=0": "depth is not usable",
    }.items():
        arguments = ["mine", bert, "--data", beir, "--output", tmp_path / "out", override]
        code, error = embedtrain_main(arguments)
        assert code == 2
        assert message in error


@pytest.fixture
def embedtrain_main(monkeypatch, capsys):
    from embedtrain.cli.main import main

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["embedtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, capsys.readouterr().err

    return run


def test_positives_that_a_cross_encoder_adds_are_trained_on(bert, cross_encoder, beir, tmp_path):
    """An untrained one calls nearly nothing relevant: the thresholds lie around what it says."""
    check = {"model": cross_encoder, "maximum": 1.0e-6, "positive": 2.0e-6, "most_positives": 2}
    config = MiningConfig.model_validate({"num_negatives": 2, "cross_encoder": check})
    folder = mine(bert, str(beir), tmp_path / "out", config, split="test")
    rows = rows_of(folder.training)
    assert all(row["positive_sources"].count("model") == 2 for row in rows)
    outcome = json.loads(folder.manifest.read_text())["outcome"]
    assert outcome["num_new_positives"] == 2 * len(rows)
    examples = list(open_source(SourceConfig(path=str(folder.training))).examples())
    assert [len(one.positives) for one in examples] == [len(row["positive_ids"]) for row in rows]
