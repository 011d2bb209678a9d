"""Commands in a process that may take little memory: smaller chunks, or one line."""

import resource
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import embedtrain
from transformers import AutoTokenizer, BertConfig, BertModel

from embedtrain.training.module import RetrievalModule

MIB = 2**20


@pytest.fixture(scope="module")
def wide(bert, tmp_path_factory) -> Path:
    """A model of one layer whose inside is wide: tokens take much memory and little time."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=200, intermediate_size=8192, max_position_embeddings=64, **shape)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


HELD: list[torch.Tensor] = []


def allow(megabytes: int) -> None:
    """Let this process take so much more than it has; what earlier tests have freed in it is taken first."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    for piece in (64 * MIB, 4 * MIB, MIB // 2, MIB // 16):
        with suppress(RuntimeError, MemoryError):
            while True:
                HELD.append(torch.empty(piece, dtype=torch.uint8))
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * MIB, resource.RLIM_INFINITY))


def test_encoding_goes_on_in_smaller_chunks(wide, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("the small cat runs over the large house near a red tree\n" * 400)
    arguments = ["encode", wide, texts, "--output"]
    whole = embedtrain([*arguments, tmp_path / "whole.npy"])
    assert whole.returncode == 0, whole.stderr
    little = embedtrain([*arguments, tmp_path / "little.npy"], before=lambda: allow(60))
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
