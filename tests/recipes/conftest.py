import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


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
  checkpoint_every: 4
  log_every: 2
"""
    )
    return path


@pytest.fixture(scope="session")
def embedtrain(cache: Path) -> Run:
    """Run the command line in a process of its own."""

    def run(arguments: Sequence[object], **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(arguments), capture_output=True, text=True, timeout=240, check=False, **settings
        )

    return run


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "embedtrain.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


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
    from embedtrain.data.corpus import CorpusConfig
    from embedtrain.train_tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer") / "tok"
    train_tokenizer([CorpusConfig(path=str(corpus))], folder, vocabulary_size=300)
    return [f"data.sources=[{{path: {corpus}}}]", f"model.backbone={folder}"]


@pytest.fixture(scope="session")
def smoke(on_corpus: list[str]) -> Callable[..., object]:
    """Load a smoke recipe of pre-training on the corpus."""
    from embedtrain.recipe import load_recipe
    from embedtrain.resources import resource

    def load(name: str, *overrides: str) -> object:
        path = resource("recipes") / "smoke" / f"pretrain_{name}.yaml"
        return load_recipe(path, [*on_corpus, *overrides])

    return load
