"""The loading rules of servers, each broken once."""

import json
import shutil

import pytest
import torch

from embedtrain.models.build import build_dense, save_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.release.servers import loading_problems

TEI, VLLM = "text-embeddings-inference", "vLLM"


def save(bert, folder, **settings):
    torch.manual_seed(0)
    save_dense(build_dense(DenseConfig(backbone=bert, **settings)), folder)
    return folder


def test_what_we_export_loads_by_the_rules_of_both(bert, tmp_path):
    folder = save(bert, tmp_path / "m", projection=8, query={"prompt": "query: "})
    assert loading_problems(folder) == {TEI: [], VLLM: []}


def edit(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content.pop(key) if value is None else content.update({key: value})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "changes", "readers", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": None}, 2, "boolean pooling_mode_cls"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.GELU"},
            2,
            "not Tanh or Identity",
        ),
        ("2_Dense/config.json", {"bias": None}, 2, "needs bias"),
        ("sentence_bert_config.json", {"max_seq_length": None}, 2, "needs max_seq_length"),
        ("sentence_bert_config.json", {"do_lower_case": None}, 1, "needs do_lower_case"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": None}},
            1,
            "prompt query is no",
        ),
    ],
)
def test_each_rule_that_is_broken_is_named(file, changes, readers, message, bert, tmp_path):
    folder = save(bert, tmp_path / "m", projection=8)
    edit(folder / file, **changes)
    found = [reasons for reasons in loading_problems(folder).values() if reasons]
    assert len(found) == readers
    assert all(any(message in reason for reason in reasons) for reasons in found)


def test_missing_files_foreign_modules_and_other_poolings_are_named(bert, tmp_path):
    folder = save(bert, tmp_path / "m", pooling="max")
    assert "none of cls, mean and last token" in loading_problems(folder)[TEI][0]
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    reasons = " ".join(loading_problems(folder)[VLLM])
    for part in (
        "tokenizer.json is missing",
        "no safetensors",
        "modules.pooling.Pooling, which is",
    ):
        assert part in reasons
    (folder / "modules.json").unlink()
    assert "modules.json is missing" in " ".join(loading_problems(folder)[TEI])


def test_late_interaction_is_for_neither_without_help(late_interaction, tmp_path):
    found = loading_problems(shutil.copytree(late_interaction, tmp_path / "m"))
    assert "no late interaction" in found[TEI][0]
    assert "--hf-overrides" in found[VLLM][0]
    edit(tmp_path / "m" / "config.json", architectures=["HF_ColBERT"])
    assert loading_problems(tmp_path / "m")[VLLM] == []
