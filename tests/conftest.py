"""Tiny models built from a config, with a tokenizer trained on a few sentences: nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
# Workers share the cores, and a forked child must not wait for threads.
os.environ["OMP_NUM_THREADS"] = "1"

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import checked_calls  # before anything of the package is imported
import fault_table
import forks
import launch_table
import pytest
import root_logs  # noqa: F401 - as pytest catches logs
import torch
import typer.testing
from alive import pytest_collection  # noqa: F401 - a hook
from hypothesis import settings
from jaxtyping import config
from language_toys import save_language_model
from sentence_toys import WORDS, sentence
from small_backbones import save_bert, save_llama, save_roberta
from sparse_toys import save_masked_model, sparse_encoder

# Which of both a kernel is for, interpreter or GPU, is settled when it and Triton are imported, so here, before
# anything imports transformers. Left set, the variable would let every loss on CPU use them.
if find_spec("triton") is not None and not torch.cuda.is_available():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import embedtrain_kernels.catalogue  # noqa: F401
        import guard_kernels  # noqa: F401

pytest_runtest_setup = checked_calls.pytest_runtest_setup

# A busy machine takes longer now and then: no test is about time.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")
torch.set_num_threads(1)
# To seed, PyTorch notes the whole stack once for each kind of device that it may meet later: milliseconds below pytest.
for device in (torch.cuda, torch.mtia, torch.xpu):
    device.traceback = SimpleNamespace(format_stack=list)
# Typer makes all commands anew for each that a test gives.
typer.testing._get_command = lru_cache(typer.testing._get_command)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EMBEDTRAIN_CACHE"] = str(folder)
    # torch.compile's own cache forgets which instructions it was compiled for: held to AVX2 and then not, it crashes.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torchinductor")
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_timed_queries() -> Iterator[None]:
    """Hundreds of timed queries make figures steady; no test is about time."""
    from embedtrain.evaluation.measures import efficiency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficiency, "TIMED_QUERIES", 5)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """No test cuts the power: what a killed process has written is there without waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """A user's session has no checks of types but the package's own."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def forked_reloads() -> Iterator[Callable[..., object]]:
    """An export is reloaded in a fork of this process; returns what starts a process instead."""
    from embedtrain.release import export

    original = export.reload_elsewhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "reload_elsewhere", forks.reload_in_a_fork)
        yield original


@pytest.fixture
def fresh_reloads(forked_reloads: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is reloaded in a process of its own, as users' exports are."""
    monkeypatch.setattr("embedtrain.release.export.reload_elsewhere", forked_reloads)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Sentences of 1 to 12 words, each different."""
    generator = torch.Generator().manual_seed(0)
    return list(dict.fromkeys(sentence(generator, 1 + i % 12) for i in range(200)))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="session")
def bert_with_dropout(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("bert-dropout"), dropout=0.2))


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_roberta(tmp_path_factory.mktemp("roberta")))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="session")
def late_interaction(bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny late-interaction model of eight dimensions per token."""
    from embedtrain.models.build import build_encoder, save_encoder
    from embedtrain.models.late_interaction.config import LateInteractionConfig

    folder = tmp_path_factory.mktemp("late-interaction")
    torch.manual_seed(0)
    config = LateInteractionConfig(
        kind="late_interaction",
        backbone=bert,
        dim=8,
        query={"length": 12},
        document={"length": 16},
    )
    save_encoder(build_encoder(config), folder)
    return str(folder)


@pytest.fixture(scope="session")
def masked_model(bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny BERT with a masked-language head, whose matrix has rows beyond the tokenizer."""
    return save_masked_model(tmp_path_factory.mktemp("masked-model"), bert)


@pytest.fixture(scope="session")
def sparse_model(masked_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny sparse model, saved."""
    from embedtrain.models.build import save_encoder

    folder = tmp_path_factory.mktemp("sparse-model")
    save_encoder(sparse_encoder(masked_model), folder)
    return str(folder)


@pytest.fixture(scope="session")
def cross_encoder(bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny classifier of pairs with one output."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("cross-encoder")
    config = BertConfig.from_pretrained(bert, num_labels=1)
    torch.manual_seed(3)
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(bert).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny causal language model with a chat template."""
    return save_language_model(tmp_path_factory.mktemp("language-model"))


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[dict[str, object]], name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows: a query is some words of its document; some documents repeat."""
    generator = torch.Generator().manual_seed(1)
    folder = tmp_path_factory.mktemp("pairs")
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for number in range(40):
            document = sentence(generator, 4 + number % 9) + f" {WORDS[number % 7]}"
            query = " ".join(document.split()[: 2 + number % 3]) + f" {WORDS[number % 11]}"
            negative = sentence(generator, 6)
            row = {"query": query, "positive": document, "negatives": [negative]}
            file.write(json.dumps(row) + "\n")
    return folder / "pairs.jsonl"


@pytest.fixture(scope="session")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of 30 documents and 10 judged queries in the splits dev and test."""
    generator = torch.Generator().manual_seed(2)
    folder = tmp_path_factory.mktemp("beir")
    documents = [sentence(generator, 5 + i % 6) for i in range(30)]
    (folder / "qrels").mkdir()
    corpus = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(documents)]
    queries = [{"_id": f"q{i}", "text": " ".join(documents[i].split()[:3])} for i in range(10)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    judgments = "".join(f"q{i}\td{i}\t1\n" for i in range(10))
    for split in ("dev", "test"):
        header = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / f"{split}.tsv").write_text(header + judgments, encoding="utf-8")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the commands bore the faults of the matrix, and what steps start on a device, where these ran."""
    fault_table.print_table(terminalreporter)
    launch_table.print_table(terminalreporter)
