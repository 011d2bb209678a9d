import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
from pair_toys import marked_rows, save_classifier


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, bert_with_dropout: str, pairs: Path) -> Path:
    """A recipe that trains a tiny encoder with dropout in a second."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(
        f"""\
description: Tiny.
data:
  sources: [{{path: {pairs}}}]
model:
  backbone: {bert_with_dropout}
  learn_temperature: 0.05
  document: {{length: 16}}
trainer:
  steps: 12
  batch_size: 8
  chunk_tokens: 60
  learning_rate: 1.0e-3
  precision: fp32
  checkpoint_every: 4
  log_every: 2
"""
    )
    return path


@pytest.fixture(scope="session")
def embedtrain(cache: Path) -> Callable[..., object]:
    """Run the command line in a fork."""
    return forks.embedtrain


@pytest.fixture(scope="session")
def corpus(sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty documents of eight sentences to pre-train on."""
    path = tmp_path_factory.mktemp("text") / "corpus.jsonl"
    documents = [". ".join(sentences[i : i + 8]) + "." for i in range(0, 200, 4)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


@pytest.fixture(scope="session")
def on_corpus(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that put a recipe of pre-training on the corpus and a tokenizer of it."""
    from embedtrain.data.pretraining.corpus import CorpusConfig
    from embedtrain.workflows.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer") / "tok"
    train_tokenizer([CorpusConfig(path=str(corpus))], folder, vocabulary_size=300)
    return [f"data.sources=[{{path: {corpus}}}]", f"model.backbone={folder}"]


@pytest.fixture(scope="session")
def smoke(on_corpus: list[str]) -> Callable[..., object]:
    """Load a smoke recipe of pre-training on the corpus."""
    from embedtrain.recipe.retrieval import load_recipe
    from embedtrain.resources import resource

    def load(name: str, *overrides: str) -> object:
        path = resource("recipes") / "smoke" / f"pretrain_{name}.yaml"
        return load_recipe(path, [*on_corpus, *overrides])

    return load


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of forked ranks; reloading each export is tested elsewhere."""
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """Rows with a positive, two negatives, a teacher's scores and cosines."""
    path = tmp_path_factory.mktemp("scored") / "scored.jsonl"
    rows = [
        {
            "query": " ".join(text.split()[:2]),
            "positive": text,
            "negatives": [sentences[(number + step) % len(sentences)] for step in (3, 7)],
            "scores": [3.0, 1.0, -1.0],
            "teacher_gram": [0.1, -0.5, number / 40],
        }
        for number, text in enumerate(sentences[:40])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def pair_sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe that trains a tiny cross-encoder with dropout in a second."""
    folder = save_classifier(tmp_path_factory.mktemp("classifier"), "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    path = tmp_path_factory.mktemp("graded") / "rows.jsonl"
    rows = [row | {"scores": [2.0, 1.0, 0.0, 0.0]} for row in marked_rows(40, 0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data": {"sources": [{"path": str(path)}]},
        "model": {
            "kind": "cross_encoder", "backbone": str(folder), "query_length": 8, "length": 32,
        },
        "objective": {"name": "info_nce"},
        "trainer": {
            "steps": 6, "batch_size": 8, "chunk_tokens": 90, "learning_rate": 1e-3,
            "checkpoint_every": 2, "log_every": 2, "rematerialize": True,
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Overrides that let a recipe for a GPU train a tiny model in a second."""
    return [
        "trainer.epochs=null",
        "trainer.steps=2",
        "trainer.batch_size=8",
        "trainer.chunk_tokens=64",
        "trainer.precision=fp32",
        "trainer.log_every=1",
        "model.query.length=12",
        "model.document.length=16",
    ]
