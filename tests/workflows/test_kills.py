"""Whatever is killed, at whatever instant, goes on when the command is given again, and ends with the same bytes."""

import json
import sys
from pathlib import Path

import pytest
from kills import Work, fork_ranks, small_blocks, torment

from embedtrain.data.examples import SourceConfig
from embedtrain.files import is_run
from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows import mine as mining
from embedtrain.workflows import score as scoring
from embedtrain.workflows.encode.shards import encode_shards
from embedtrain.workflows.mine import mine
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline
from embedtrain.workflows.score import score
from embedtrain.workflows.train import resume, train

KILLS = {"train": (1, 30), "ranks": (1, 24), "mine": (1, 16), "encode": (1, 12), "score": (1, 10), "pipeline": (1, 12)}  # fmt: skip
"""Of each kind of work, in every run of the tests and in `make prove`: 6 and 104."""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small blocks, so that there is much to be killed between; ranks are forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        patch.setattr("embedtrain.training.ranks.launcher._start", fork_ranks)
        patch.setattr(mining, "QUERIES_PER_PART", 3)
        patch.setattr(scoring, "EXAMPLES_PER_BLOCK", 8)
        small_blocks(patch)
        yield


def files(*patterns: str):
    def outcome(folder: Path) -> dict[str, bytes]:
        paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        assert len(paths) >= len(patterns)
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return outcome


TRAINED = files("model/model.safetensors", "metrics.csv", "checkpoints/best.ckpt")


def train_work(bert: str, pairs: Path, beir: Path, tmp: Path, devices: int = 1) -> Work:
    recipe = tmp / f"tiny-{devices}.yaml"
    recipe.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}]}}
model: {{backbone: {bert}, document: {{length: 16}}}}
validation: {{path: {beir}, split: dev, every_steps: 3}}
trainer: {{steps: 6, batch_size: 8, chunk_tokens: 60, checkpoint_every: 2, log_every: 1, devices: {devices}}}
"""
    )

    def do(folder: Path) -> None:
        if is_run(folder):
            resume(folder)
        else:
            train(load_recipe(recipe), folder)

    return Work(do, TRAINED, devices)


def mine_work(bert: str, beir: Path) -> Work:
    config = MiningConfig(num_negatives=3)

    def do(folder: Path) -> None:
        mine(bert, str(beir), folder, config, split="test")

    return Work(do, files("negatives.jsonl", "train.jsonl", "suspects.md"))


def encode_work(bert: str, sentences: list[str], tmp: Path) -> Work:
    texts = tmp / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences[:60]))

    def do(folder: Path) -> None:
        encode_shards(bert, texts, folder, rows_per_shard=7)

    return Work(do, files("*.npy", "manifest.json"))


def score_work(bert: str, pairs: Path) -> Work:
    def do(folder: Path) -> None:
        score(bert, SourceConfig(path=str(pairs)), folder / "scored.jsonl")

    return Work(do, files("scored.jsonl"))


def pipeline_work(bert: str, pairs: Path, beir: Path, tmp: Path) -> Work:
    path = tmp / "pipeline.yaml"
    model = f"model: {{backbone: {bert}, document: {{length: 16}}}}"
    trainer = "trainer: {steps: 3, batch_size: 8, checkpoint_every: 1, chunk_tokens: 60}"
    path.write_text(
        f"""\
description: Two stages.
stages:
  - name: warm-up
    train: {{data: {{sources: [{{path: {pairs}}}]}}, {model}, {trainer}}}
  - name: mined
    mine: {{model: "stage:warm-up/model", data: {beir}, split: test, settings: {{num_negatives: 2}}}}
  - name: scored
    score: {{teacher: "stage:warm-up/model", data: "stage:mined/train.jsonl"}}
"""
    )

    def do(folder: Path) -> None:
        run_pipeline(load_pipeline(path), folder)

    return Work(
        do, files("warm-up/model/model.safetensors", "mined/train.jsonl", "scored/scored.jsonl")
    )


@pytest.fixture
def work(request, bert, bert_with_dropout, pairs, beir, sentences, tmp_path) -> Work:
    return {
        "train": lambda: train_work(bert_with_dropout, pairs, beir, tmp_path),
        "ranks": lambda: train_work(bert_with_dropout, pairs, beir, tmp_path, 2),
        "mine": lambda: mine_work(bert, beir),
        "encode": lambda: encode_work(bert, sentences, tmp_path),
        "score": lambda: score_work(bert, pairs),
        "pipeline": lambda: pipeline_work(bert, pairs, beir, tmp_path),
    }[request.param]()


def end_with_the_same_bytes(work: Work, kind: str, kills: int, tmp_path: Path) -> None:
    work.do(tmp_path / "undisturbed")  # and imports what the forks would import again
    expected = work.outcome(tmp_path / "undisturbed")
    tally = torment(work, expected, kills, tmp_path, kind)
    assert tally.kills == kills
    assert tally.finished
    sys.stderr.write(
        f"{kind}: killed {tally.by_victim}, {tally.finished} runs with the same bytes\n"
    )


@pytest.mark.parametrize(("work", "kind"), [(kind, kind) for kind in KILLS], indirect=["work"])
def test_a_few_kills_change_no_byte(work, kind, tmp_path):
    end_with_the_same_bytes(work, kind, KILLS[kind][0], tmp_path)


@pytest.mark.prove
@pytest.mark.parametrize(("work", "kind"), [(kind, kind) for kind in KILLS], indirect=["work"])
def test_a_hundred_kills_change_no_byte(work, kind, tmp_path):
    end_with_the_same_bytes(work, kind, KILLS[kind][1], tmp_path)
