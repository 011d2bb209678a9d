"""Commands in a process that may take little memory: smaller chunks, or one line."""

import json
import random
import resource
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_world import import_everything
from forks import embedtrain
from jaxtyping import config
from transformers import AutoTokenizer, BertConfig, BertModel

from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.training.module import RetrievalModule

MIB = 2**20


@pytest.fixture(scope="module")
def wide(bert, tmp_path_factory) -> Path:
    """A model of one layer whose inside is wide: tokens take much memory and little time."""
    import_everything()  # what a fork imports would count against its limit
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=200, intermediate_size=8192, max_position_embeddings=64, **shape)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


HELD: list[torch.Tensor] = []


def allow(megabytes: int) -> None:
    """Let this process take so much more than it has; what earlier tests have freed in it is taken first.

    The tests' checks of types end: they break where they find no memory.
    """
    config.update("jaxtyping_disable", True)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    for piece in (64 * MIB, 4 * MIB, MIB // 2, MIB // 16):
        with suppress(RuntimeError, MemoryError):
            while True:
                HELD.append(torch.empty(piece, dtype=torch.uint8))
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * MIB, resource.RLIM_INFINITY))


def allow_in_encoding(megabytes: int) -> None:
    """The same from the first batch on: what libraries take before it differs from run to run."""
    states, begun = DenseEncoder.states, []

    def limited(encoder: DenseEncoder, *arguments, **settings):
        if not begun:
            begun.append(True)
            allow(megabytes)
        return states(encoder, *arguments, **settings)

    DenseEncoder.states = limited


def test_encoding_goes_on_in_smaller_chunks(wide, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("the small cat runs over the large house near a red tree\n" * 400)
    arguments = ["encode", wide, texts, "--output"]
    whole = embedtrain([*arguments, tmp_path / "whole.npy"])
    assert whole.returncode == 0, whole.stderr
    little = embedtrain([*arguments, tmp_path / "little.npy"], before=lambda: allow_in_encoding(60))
    assert little.returncode == 0, little.stderr
    assert "Memory ran out; encoding goes on with" in little.stderr
    expected, found = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "little.npy")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def allow_in_training(megabytes: int) -> None:
    """The same from the first step to the last: libraries take their part before and after."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    start, end = RetrievalModule.on_train_start, RetrievalModule.on_train_end

    def started(module: RetrievalModule) -> None:
        start(module)
        allow(megabytes)

    def ended(module: RetrievalModule) -> None:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
        end(module)

    RetrievalModule.on_train_start, RetrievalModule.on_train_end = started, ended


def recipe(folder: Path, wide: Path, pairs: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"description: x\ndata: {{sources: [{{path: {pairs}}}]}}\n"
        f"model: {{backbone: {wide}, dropout: 0.0}}\nobjective: {{name: info_nce}}\n"
        "trainer: {steps: 2, batch_size: 40, log_every: 1, precision: fp32, accelerator: cpu}\n"
    )
    return path


def test_training_goes_on_in_smaller_chunks_or_ends_in_one_line(wide, pairs, tmp_path):
    path = recipe(tmp_path, wide, pairs)
    runs = {name: tmp_path / name for name in ("whole", "little", "none")}
    for name, megabytes in (("whole", 100_000), ("little", 90), ("none", 6)):
        ended = embedtrain(
            ["train", path, "--output", runs[name]], before=partial(allow_in_training, megabytes)
        )
        if name == "none":
            assert ended.returncode == 2, ended.stderr
            assert "Traceback" not in ended.stderr
        else:
            assert ended.returncode == 0, ended.stderr
            again = "ran out of memory; it is done again" in ended.stderr
            assert again == (name == "little"), ended.stderr
    losses = [
        [line.split(",")[1] for line in (runs[name] / "metrics.csv").read_text().splitlines()]
        for name in ("whole", "little")
    ]
    assert losses[0] == losses[1]


SENTENCE = [
    "the",
    "small",
    "cat",
    "runs",
    "over",
    "the",
    "large",
    "house",
    "near",
    "a",
    "red",
    "tree",
]


@pytest.fixture(scope="module")
def many_documents(tmp_path_factory) -> Path:
    """A BEIR folder with more tokens than one chunk of the wide model may hold under a limit."""
    folder = tmp_path_factory.mktemp("documents")
    draw = random.Random(0)
    texts = [" ".join(draw.choices(SENTENCE, k=14)) for _ in range(300)]
    (folder / "qrels").mkdir()
    for name, rows in (("corpus", texts), ("queries", [text[:30] for text in texts[:60]])):
        lines = [
            {"_id": f"{name}{row}", "title": "", "text": text} for row, text in enumerate(rows)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judgments = "".join(f"queries{row}\tcorpus{row}\t1\n" for row in range(60))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgments)
    return folder


COMMANDS = {
    "evaluate": "evaluate MODEL --data DATA --output OUT/result.json --no-efficiency",
    "mine": "mine MODEL --data DATA --split test --output OUT/mined num_negatives=2 depth=10",
    "search": "search MODEL red --data DATA",
}
RESULTS = {"evaluate": "result.trec", "mine": "mined/train.jsonl"}
"""Files that must be the same, with memory and without much."""


def run_within(name, megabytes, wide, data, folder, monkeypatch):
    """Run a command with a cache of its own; return how it ended and its results."""
    folder.mkdir()
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(folder / "cache"))
    places = {"MODEL": wide, "DATA": data}
    words = [
        places.get(word, word.replace("OUT", str(folder / "out")))
        for word in COMMANDS[name].split()
    ]
    ended = embedtrain(words, before=partial(allow_in_encoding, megabytes))
    result = folder / "out" / RESULTS.get(name, "")
    return ended, result.read_text() if result.is_file() else ended.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_encode_go_on_in_smaller_chunks_or_end_in_one_line(
    name, wide, many_documents, tmp_path, monkeypatch
):
    run = partial(run_within, name, wide=wide, data=many_documents, monkeypatch=monkeypatch)
    whole, expected = run(100_000, folder=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "Memory ran out" not in whole.stderr
    little, found = run(60, folder=tmp_path / "little")
    assert little.returncode == 0, little.stderr
    assert "Memory ran out; encoding goes on with" in little.stderr
    assert _ranks(found) == _ranks(expected)
    none, _ = run(0, folder=tmp_path / "none")
    assert none.returncode == 2, none.stderr
    assert "Traceback" not in none.stderr
    assert sum(line.startswith("error: ") for line in none.stderr.splitlines()) == 1
    assert list((tmp_path / "none").rglob("out/*")) == []


def _ranks(text: str) -> list[list[str]]:
    """Return the words of a result that are no fractions: sums of other chunks round otherwise."""
    return [[word for word in line.split() if "." not in word] for line in text.splitlines()]
