import errno
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import embedtrain
from hub_stub import reach
from safetensors import SafetensorError

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.release import export as export_module
from embedtrain.release.export import export, verify, write_model

TEXTS = ["red cat", "a large blue dog runs over the tree", "x"]

KEYS = ["model.num_layers=null", "model.document.length=64"]


def encoder(path: str, **settings):
    torch.manual_seed(1)
    return build_dense(DenseConfig(backbone=path, **settings))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", {"query": {"prompt": "query: "}, "document": {"prompt": "passage: "}}),
        ("bert", {"pooling": "cls", "similarity": "dot", "projection": 8}),
        ("roberta", {"pooling": "max"}),
        ("llama", {"pooling": "last_token"}),
        ("llama", {"pooling": "weighted_mean", "projection": 8}),
    ],
)
def test_sentence_transformers_gives_the_same_vectors(kind, settings, request, tmp_path):
    """`write_model` itself reloads and compares; here the folder is also read back by ourselves."""
    model = encoder(request.getfixturevalue(kind), **settings)
    folder = write_model(model, tmp_path / "model")
    again = load_dense(str(folder))
    assert again.contract == model.contract
    for side in ("query", "document"):
        difference = encode_texts(model, TEXTS, side) - encode_texts(again, TEXTS, side)
        assert np.abs(difference).max() < 1e-6


def test_the_model_of_a_recipe_is_written_untrained(llama, bert, tmp_path):
    folder = export(
        "llm/prompt_eol", tmp_path / "eol", overrides=[*KEYS, f"model.backbone={llama}"]
    )
    contract = load_dense(str(folder)).contract
    assert contract.framing.query_suffix == '" can be said in one word: "'
    plain = embed_of(load_dense(llama), contract)
    assert np.abs(encode_texts(load_dense(str(folder)), TEXTS, "query") - plain).max() < 1e-6
    with pytest.raises(UserError, match="keys to set are for a recipe"):
        export(bert, tmp_path / "other", overrides=["model.backbone=x"])
    with pytest.raises(UserError, match="is a recipe of pre-training"):
        export("pretrain/mlm", tmp_path / "other", overrides=[f"model.backbone={bert}"])


def embed_of(model, contract):
    model.contract = contract
    return encode_texts(model, TEXTS, "query")


@pytest.mark.usefixtures("fresh_reloads")
def test_an_export_is_reloaded_in_a_process_of_its_own(bert, tmp_path, monkeypatch):
    assert (write_model(encoder(bert), tmp_path / "model") / "model.safetensors").is_file()
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(UserError, match="cannot be loaded again"):
        write_model(encoder(bert), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_layout_is_the_legacy_one_with_prompts(bert, tmp_path):
    model = encoder(bert, query={"prompt": "query: ", "length": 20}, projection=8)
    save_dense(model, tmp_path / "m")
    read = lambda name: json.loads((tmp_path / "m" / name).read_text())  # noqa: E731
    types = [module["type"].rsplit(".", 1)[-1] for module in read("modules.json")]
    assert types == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert read("1_Pooling/config.json")["pooling_mode_mean_tokens"] is True
    assert read("config_sentence_transformers.json")["prompts"] == {
        "query": "query: ",
        "document": "",
    }
    assert read("sentence_bert_config.json")["max_seq_length"] == 64
    assert read("tokenizer_config.json")["model_max_length"] == 64  # where fastembed looks
    assert read("tokenizer.json")["truncation"] is None
    assert read("config.json").get("_attn_implementation") is None


def test_a_sentence_transformers_folder_without_our_file_keeps_pooling_and_prompts(bert, tmp_path):
    save_dense(encoder(bert, pooling="max", query={"prompt": "q: "}), tmp_path / "m")
    (tmp_path / "m/embedtrain.json").unlink()
    contract = load_dense(str(tmp_path / "m")).contract
    assert contract.pooling == "max"
    assert contract.query_prompt == "q: "
    assert contract.document_length == 64


def test_a_folder_that_gives_other_vectors_is_not_announced(bert, tmp_path):
    model = encoder(bert)
    save_dense(model, tmp_path / "m")
    with torch.no_grad():
        model.backbone.encoder.layer[0].output.dense.bias[3] += 1
    with pytest.raises(UserError, match="gives other query vectors when loaded again"):
        verify(model, tmp_path / "m")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_neither_a_half_export_nor_a_loss(error, bert, tmp_path, monkeypatch):
    model = encoder(bert)
    old = tmp_path / "model"
    old.mkdir()
    (old / "precious").touch()

    def full(*_, **__):
        raise error

    monkeypatch.setattr(export_module, "save_model", full)
    with pytest.raises(UserError, match=r"model cannot be written: the disk is full; got .* free"):
        write_model(model, old, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert [p.name for p in old.iterdir()] == ["precious"]


def test_an_existing_folder_is_not_overwritten_unless_asked(bert, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"--output exists.*Add --overwrite"):
        export(bert, tmp_path / "model")


def copy_without(bert: str, folder: Path, *patterns: str) -> str:
    shutil.copytree(bert, folder)
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
    return str(folder)


def test_unusable_model_folders_are_named(bert, tmp_path):
    cases = {
        "has no tokenizer": copy_without(bert, tmp_path / "a", "tokenizer*"),
        "has no safetensors weights": copy_without(bert, tmp_path / "b", "*.safetensors"),
        "has no config.json": copy_without(bert, tmp_path / "c", "config.json"),
        "is not a model folder": str(tmp_path / "none/at/all"),
    }
    pickled = copy_without(bert, tmp_path / "d", "*.safetensors")
    (tmp_path / "d/pytorch_model.bin").write_bytes(b"\x80\x04")
    cases["holds its weights as a pickle"] = pickled
    broken = copy_without(bert, tmp_path / "e")
    (tmp_path / "e/config.json").write_text("{")
    cases["is not valid JSON"] = broken
    cases["names a Python package that is not installed"] = "package:no_such_package/model"
    for message, path in cases.items():
        with pytest.raises(UserError, match=message):
            load_dense(path)


def test_a_hub_id_that_cannot_be_reached_is_one_line(tmp_path):
    done = embedtrain(
        ["export", "org/name", "--output", "x"],
        before=lambda: reach("http://127.0.0.1:9", tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: org/name is neither a local folder nor")
    assert "Traceback" not in done.stderr
