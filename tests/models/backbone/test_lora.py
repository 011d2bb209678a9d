"""Adapters: what they compute, what of them is kept, and what is left when they are folded in."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer, LlamaConfig, LlamaModel

from embedtrain.errors import UserError
from embedtrain.models.backbone.frozen import load_trained_weights, without_frozen
from embedtrain.models.backbone.loading import BackboneConfig, _check_attention, load_backbone
from embedtrain.models.backbone.lora import LoraConfig, adapted_layers, merge_lora, save_adapter
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig

WHOLE = Execution(10_000)
IDS = torch.arange(3, 12)[None]


def adapted(path, seed=0, **settings):
    """Return a backbone whose adapters do something."""
    torch.manual_seed(seed)
    model = load_backbone(path, BackboneConfig(lora={"rank": 4} | settings)).model.eval()
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def states(model):
    with torch.no_grad():
        return model(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("backbone", ["bert", "llama"])
def test_fresh_adapters_compute_what_the_backbone_does(backbone, dora, request):
    path = request.getfixturevalue(backbone)
    plain = load_backbone(path).model.eval()
    lora = load_backbone(path, BackboneConfig(lora={"rank": 4, "dora": dora})).model.eval()
    torch.testing.assert_close(states(lora), states(plain), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("frozen", ["float32", "bfloat16"])
def test_only_adapters_are_trained_and_in_float32(llama, frozen):
    model = adapted(llama, frozen=frozen)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert len(trained) == 2 * len(list(adapted_layers(model)))
    others = [p for p in model.parameters() if not p.requires_grad]
    assert {p.dtype for p in others} == {getattr(torch, frozen)}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("backbone", ["bert", "llama"])
def test_merged_layers_are_plain_and_compute_the_same(backbone, dora, request):
    model = adapted(request.getfixturevalue(backbone), dora=dora)
    before = states(model)
    plain = states(load_backbone(request.getfixturevalue(backbone)).model.eval())
    assert (before - plain).abs().max() > 1e-2
    merge_lora(model)
    torch.testing.assert_close(states(model), before, atol=1e-5, rtol=1e-4)
    assert not list(adapted_layers(model))
    assert {type(m) for m in model.modules() if isinstance(m, torch.nn.Linear)} == {torch.nn.Linear}


@pytest.fixture
def wide(llama, tmp_path):
    """A model whose layers four bits fit, which come in blocks of 64."""
    pytest.importorskip("bitsandbytes")
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
    )
    LlamaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    return str(tmp_path)


def test_after_a_validation_weights_in_four_bits_still_pass_gradients_on(wide):
    """bitsandbytes packs them anew for inference on processors with bfloat16, and its product then has no gradient."""
    from bitsandbytes.functional import dequantize_4bit

    model, plain = adapted(wide, frozen="nf4"), adapted(wide)
    kept = dict(plain.named_modules())
    with torch.no_grad():
        for name, layer in model.named_modules():
            state = getattr(getattr(layer, "weight", None), "quant_state", None)
            if state is not None:
                kept[name].weight.copy_(dequantize_4bit(layer.weight.data, state))
        states(model)  # as a validation does: nothing is trained
    ours, theirs = gradients_of(model), gradients_of(plain)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def gradients_of(model):
    model.train()
    model(input_ids=IDS).last_hidden_state.square().sum().backward()
    return {name: one.grad for name, one in model.named_parameters() if "lora_" in name}


def test_merging_weights_in_four_bits_keeps_what_they_computed(wide):
    model = adapted(wide, frozen="nf4")
    before = states(model)
    merge_lora(model)
    torch.testing.assert_close(
        states(model), before, atol=5e-2, rtol=5e-2
    )  # its products are bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# peft 0.21 asks transformers 5.23 for a name that has a new one.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_folder_is_read_by_peft_and_by_us(llama, tmp_path, dora):
    config = LoraConfig(rank=4, dora=dora)
    model = adapted(llama, dora=dora)
    save_adapter(model, config, llama, tmp_path)
    base = AutoModel.from_pretrained(llama, dtype=torch.float32)
    torch.testing.assert_close(states(PeftModel.from_pretrained(base, tmp_path)), states(model))
    again = LoraConfig(rank=4, dora=dora, start=str(tmp_path))
    torch.testing.assert_close(
        states(load_backbone(llama, BackboneConfig(lora=again)).model.eval()), states(model)
    )


def test_checkpoints_hold_adapters_and_heads_only(llama):
    config = DenseConfig(backbone=llama, lora=LoraConfig(rank=2), projection=8)
    model = build_dense(config)
    kept = without_frozen(model, model.state_dict())
    assert {name for name in kept if "lora_" not in name} == {"projection.weight"}
    torch.manual_seed(1)
    other = build_dense(config)
    load_trained_weights("x.ckpt", other, kept)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    kept.pop("projection.weight")
    with pytest.raises(UserError, match=r"x\.ckpt lacks 1 tensor .*: projection\.weight"):
        load_trained_weights("x.ckpt", other, kept)


@pytest.mark.parametrize("backbone", ["bert", "llama"])
def test_an_export_holds_the_sum_of_both(backbone, request, tmp_path):
    path = request.getfixturevalue(backbone)
    config = DenseConfig(backbone=path, lora=LoraConfig(rank=2))
    model = build_dense(config).eval()
    for _, layer in adapted_layers(model.backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    texts = model.tokenization.encode(["red cat", "a small bird"], "query")
    with torch.no_grad():
        before = model.embed(texts, WHOLE)
        merge_lora(model.backbone)
        save_dense(model, tmp_path / "model")
        after = load_dense(str(tmp_path / "model")).eval().embed(texts, WHOLE)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_targets_choose_layers_by_the_end_of_their_names(llama):
    model = adapted(llama, targets=("q_proj", "mlp.up_proj"))
    names = {name.rpartition(".")[2] for name, _ in adapted_layers(model)}
    assert names == {"q_proj", "up_proj"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targets": ("query",)}, r"got='query'|got 'query'.*Use some of down_proj"),
        ({"start": "nowhere"}, "holds no adapter_model.safetensors"),
    ],
)
def test_mistakes_are_named(llama, settings, words):
    with pytest.raises(UserError, match=words):
        adapted(llama, **settings)


def test_an_adapter_of_another_rank_is_refused(llama, tmp_path):
    save_adapter(adapted(llama), LoraConfig(rank=4), llama, tmp_path)
    with pytest.raises(
        UserError,
        match=r"lora_A\.weight of another shape than the model's, \[2, 64\]; got \[4, 64\]",
    ):
        adapted(llama, rank=2, start=str(tmp_path))


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_bidirectional_attention_lets_earlier_tokens_see_later_ones(llama, packing):
    def first_states(attention):
        config = DenseConfig(
            backbone=llama, attention=attention, pooling="cls", packing=packing, similarity="dot"
        )
        model = build_dense(config).eval()
        texts = ["red cat runs", "red cat sleeps", "dog"]
        with torch.no_grad():
            return model.embed(model.tokenization.encode(texts, "query"), WHOLE)

    causal, both = first_states("causal"), first_states("bidirectional")
    torch.testing.assert_close(causal[0], causal[1])
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_bidirectional_attention_survives_an_export(llama, tmp_path):
    model = build_dense(DenseConfig(backbone=llama, attention="bidirectional", pooling="mean"))
    texts = model.tokenization.encode(["red cat runs", "dog"], "query")
    save_dense(model, tmp_path / "model")
    with torch.no_grad():
        expected = model.eval().embed(texts, WHOLE)
        found = load_dense(str(tmp_path / "model")).eval().embed(texts, WHOLE)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_model_that_does_not_do_as_asked_is_refused(llama):
    with pytest.raises(UserError, match=r"stays causal; got 'bidirectional'"):
        _check_attention(load_backbone(llama).model, "bidirectional")
