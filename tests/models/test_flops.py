"""The count of operations against what torch itself sees on tiny models of each family."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from embedtrain.models.backbone.biases import train_biases_only
from embedtrain.models.backbone.lora import LoraConfig, add_lora
from embedtrain.models.flops import DECODERS, ENCODERS, Passes, Sight, count_backbone

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
OWN = {
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 3, "cls_token_id": 1, "sep_token_id": 1},
    "mistral": {"sliding_window": 5},
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
}  # fmt: skip
NAMED = {"distilbert": ("vocab_size", "max_position_embeddings", "pad_token_id")}
LENGTH, TEXTS = 13, 3


def backbone(family, **settings):
    names = NAMED.get(family, tuple(SIZES))
    sizes = {name: SIZES[name] for name in names}
    if family in DECODERS:
        sizes |= GROUPED
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **sizes | OWN.get(family, {}) | settings)
    kind = "eager" if family == "mpnet" else "sdpa"
    model = AutoModel.from_config(config, attn_implementation=kind)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.train()


def operations(model):
    """Return what torch counts in a forward and in a backward pass; rotary positions are no product of the model."""
    ids = torch.randint(2, 60, (TEXTS, LENGTH))
    counts = []
    with sdpa_kernel(SDPBackend.MATH):  # of the fused form on a CPU torch knows no count
        with FlopCounterMode(display=False) as counter:
            states = model(input_ids=ids, use_cache=False).last_hidden_state
        rotary = sum(
            sum(found.values())
            for name, found in counter.get_flop_counts().items()
            if name.endswith("rotary_emb")
        )
        counts.append(counter.get_total_flops() - rotary)
        with FlopCounterMode(display=False) as counter:
            states.sum().backward()
        counts.append(counter.get_total_flops())
    return Passes(*counts)


def counted(model):
    found = count_backbone(model).count(torch.full((TEXTS,), LENGTH), dense=True)
    return Passes(found.forward, found.backward)


@pytest.mark.parametrize("family", ENCODERS + DECODERS)
def test_the_count_of_every_family_is_what_torch_sees(family):
    model = backbone(family)
    assert counted(model) == operations(model)


@pytest.mark.parametrize("targets", [(), "attention", "values", "inner"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "mpnet", "llama", "qwen3"])
def test_adapters_count_for_what_they_train(family, targets):
    model = backbone(family)
    named = {
        "attention": {"modernbert": ("Wqkv",), "bert": ("query", "value"), "mpnet": ("attn.q", "attn.v"), "distilbert": ("q_lin", "v_lin")},
        "values": {"modernbert": ("attn.Wo",), "bert": ("value",), "mpnet": ("attn.v",), "distilbert": ("v_lin",)},
        "inner": {"modernbert": ("Wi",), "bert": ("intermediate.dense",), "mpnet": ("intermediate.dense",), "distilbert": ("lin1",)},
    }  # fmt: skip
    decoder = {"attention": ("q_proj", "v_proj"), "values": ("v_proj",), "inner": ("gate_proj",)}
    ends = named[targets].get(family, decoder[targets]) if targets else ()
    add_lora(model, LoraConfig(rank=2, targets=ends))
    assert counted(model) == operations(model)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "qwen2"])
def test_biases_want_gradients_and_their_weights_none(family):
    model = backbone(family)
    train_biases_only(model, family)
    assert counted(model) == operations(model)


def test_what_no_test_compares_is_not_counted():
    model = backbone("bert")
    add_lora(model, LoraConfig(rank=2, dora=True))
    assert count_backbone(model) is None
    assert count_backbone(torch.nn.Linear(2, 2)) is None
    model = backbone("bert")
    model.config.model_type = "unheard_of"
    assert count_backbone(model) is None


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {}),
        ("modernbert", {}),
        ("llama", {}),
        ("llama", {"is_causal": False}),
        ("mistral", {}),
        ("qwen3", {}),
        ("gemma3_text", {}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
    ],
)
def test_the_pairs_that_see_each_other_are_those_of_the_masks(family, settings):
    model = backbone(family, **settings)
    model.set_attn_implementation("eager")
    seen = []

    def look(module, args, kwargs):
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if mask is None:  # nothing is hidden
            seen.append(LENGTH**2)
        else:
            seen.append(int((mask if mask.dtype == torch.bool else mask == 0).sum()))

    for name, part in model.named_modules():
        if name.endswith(("self_attn", ".attn", "attention.self")):
            part.register_forward_pre_hook(look, with_kwargs=True)
    ids = torch.randint(2, 60, (1, LENGTH))
    model(input_ids=ids, use_cache=False)
    head_dim = getattr(model.config, "head_dim", None) or 32 // 4
    one = 4 * 4 * head_dim
    lengths = torch.tensor([LENGTH])
    pairs = count_backbone(model).per_pair
    assert len(seen) == 3
    assert sum(sight.pairs(lengths) * each.forward for sight, each in pairs) == one * sum(seen)


def test_pairs_are_counted_for_ragged_texts_and_any_window():
    lengths = torch.tensor([1, 2, 7, 12])
    for before in (None, 0, 1, 3, 20):
        for behind in (None, 0, 2, 50):
            expected = 0
            for length in lengths.tolist():
                at = torch.arange(length)
                apart = at[None] - at[:, None]
                visible = torch.ones(length, length, dtype=torch.bool)
                if before is not None:
                    visible &= apart >= -before
                if behind is not None:
                    visible &= apart <= behind
                expected += int(visible.sum())
            assert Sight(before, behind).pairs(lengths) == expected
