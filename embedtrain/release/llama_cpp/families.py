"""How the families of backbones are called in GGUF: their weights, sizes and switches."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from embedtrain.errors import UserError

Writer = Any
"""A ``gguf.GGUFWriter``, which is untyped."""


@dataclass(frozen=True)
class Family:
    """One of llama.cpp's architectures."""

    architecture: str
    names: Mapping[str, str]
    """Parts of transformers' names, and what stands in their place; the number of a layer is kept."""
    layer: str
    """What stands before the number of a layer."""
    unused: re.Pattern[str]
    """Names of weights that no vector depends on."""
    describe: Callable[[Writer, Any], None]
    """Writes the sizes of a config."""
    norm_shift: float = 0.0
    """Added to the weights of norms, which the backbone takes as distances from it."""
    projection: str = ""
    """What the layer behind the pooling is called; empty where there is no place for one."""


def _describe_bert(writer: Writer, config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    if config.hidden_act != "gelu":
        raise _other("hidden_act", config.hidden_act)
    if getattr(config, "is_decoder", False):
        raise _other("is_decoder", True)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)


def _describe_qwen3(writer: Writer, config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    if not getattr(config, "is_causal", True):
        raise _other("is_causal", False)
    if getattr(config, "use_sliding_window", False):
        raise _other("use_sliding_window", True)
    if config.hidden_act != "silu":
        raise _other("hidden_act", config.hidden_act)
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise _other("rope_type", rope["rope_type"])
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope["rope_theta"]))


def _describe_gemma(writer: Writer, config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    for key, wanted in (
        ("use_bidirectional_attention", True),
        ("attention_bias", False),
        ("attn_logit_softcapping", None),
        ("query_pre_attn_scalar", config.head_dim),
        ("hidden_activation", "gelu_pytorch_tanh"),
    ):
        if getattr(config, key) != wanted:
            raise _other(key, getattr(config, key))
    kinds = ("full_attention", "sliding_attention")
    count = config.num_hidden_layers
    period = next((layer + 1 for layer, kind in enumerate(config.layer_types) if kind == kinds[0]), count + 1)  # fmt: skip
    if config.layer_types != [kinds[(layer + 1) % period != 0] for layer in range(count)]:
        raise _other("layer_types", config.layer_types)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    # transformers keeps half of it and one more, which it leaves out itself; llama.cpp takes half of the whole.
    writer.add_sliding_window(2 * (config.sliding_window - 1))
    writer.add_sliding_window_pattern(period)
    _describe_ropes(writer, config, kinds)


def _describe_ropes(writer: Writer, config: Any, kinds: tuple[str, str]) -> None:  # noqa: ANN401
    """Write the base of the angles of layers that see all, and of those that see a window."""
    for kind in kinds:
        rope = config.rope_parameters[kind]
        if rope.get("rope_type", "default") != "default":
            raise _other("rope_type", rope["rope_type"])
    whole, local = (float(config.rope_parameters[kind]["rope_theta"]) for kind in kinds)
    writer.add_rope_freq_base(whole)
    writer.add_rope_freq_base_swa(local)


def _describe_modern_bert(writer: Writer, config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    for key in ("attention_bias", "mlp_bias", "norm_bias"):
        if getattr(config, key):
            raise _other(key, True)
    if config.hidden_activation != "gelu":
        raise _other("hidden_activation", config.hidden_activation)
    kinds = ("full_attention", "sliding_attention")
    whole = [layer for layer, kind in enumerate(config.layer_types) if kind == kinds[0]]
    period = whole[1] if len(whole) > 1 else len(config.layer_types)
    if config.layer_types != [
        kinds[layer % period != 0] for layer in range(config.num_hidden_layers)
    ]:
        raise _other("layer_types", config.layer_types)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_causal_attention(False)
    writer.add_sliding_window(config.local_attention)
    writer.add_sliding_window_pattern(period)
    _describe_ropes(writer, config, kinds)
    writer.add_vocab_size(config.vocab_size)


def _other(key: str, value: object) -> UserError:
    return UserError(
        "--gguf", f"has no place for this backbone's {key}", got=value, cure="Use --onnx instead"
    )


DECODER = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Weights that decoders name alike."""
FAMILIES = {
    "bert": Family(
        "bert",
        {
            "embeddings.word_embeddings": "token_embd",
            "embeddings.position_embeddings": "position_embd",
            "embeddings.token_type_embeddings": "token_types",
            "embeddings.LayerNorm": "token_embd_norm",
            "attention.self.query": "attn_q",
            "attention.self.key": "attn_k",
            "attention.self.value": "attn_v",
            "attention.output.dense": "attn_output",
            "attention.output.LayerNorm": "attn_output_norm",
            "intermediate.dense": "ffn_up",
            "output.dense": "ffn_down",
            "output.LayerNorm": "layer_output_norm",
        },
        "encoder.layer.",
        re.compile(r"pooler\.|embeddings\.position_ids"),
        _describe_bert,
    ),
    "modernbert": Family(
        "modern-bert",
        {
            "embeddings.tok_embeddings": "token_embd",
            "embeddings.norm": "token_embd_norm",
            "final_norm": "output_norm",
            "attn_norm": "attn_norm",
            "attn.Wqkv": "attn_qkv",
            "attn.Wo": "attn_output",
            "mlp_norm": "ffn_norm",
            "mlp.Wi": "ffn_up",
            "mlp.Wo": "ffn_down",
        },
        "layers.",
        re.compile(r"rotary_emb\."),
        _describe_modern_bert,
    ),
    "qwen3": Family(
        "qwen3",
        {
            **DECODER,
            "post_attention_layernorm": "ffn_norm",
        },
        "layers.",
        re.compile(r"rotary_emb\."),
        _describe_qwen3,
    ),
    "gemma3_text": Family(
        "gemma-embedding",
        {
            **DECODER,
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        },
        "layers.",
        re.compile(r"rotary_emb\."),
        _describe_gemma,
        norm_shift=1.0,
        projection="dense_2",
    ),
}
"""By ``model_type``."""
POSITIONS = "position_embd.weight"


def named_weights(
    family: Family, weights: Mapping[str, Tensor], length: int
) -> Iterator[tuple[str, Shaped[Tensor, "..."]]]:
    """Yield the weights in float32 under their names in GGUF.

    Args:
        family: Of the backbone.
        weights: Of the backbone, as transformers names them.
        length: Tokens of the longest text. llama.cpp cuts where the table of positions ends, so it ends there.

    Raises:
        UserError: If a weight has no name there.
    """
    for name, weight in weights.items():
        if family.unused.match(name):
            continue
        named = _named(family, name)
        if named is None:
            raise UserError(
                "--gguf", "has no place for a weight of this backbone", got=name,
                cure="Use --onnx instead",
            )  # fmt: skip
        tensor = weight.detach().to("cpu", torch.float32, copy=True)
        if named.endswith("norm.weight"):
            tensor += family.norm_shift
        yield named, tensor[:length] if named == POSITIONS else tensor


def _named(family: Family, name: str) -> str | None:
    prefix, (part, _, kind) = "", name.rpartition(".")
    if part.startswith(family.layer):
        number, _, part = part.removeprefix(family.layer).partition(".")
        prefix = f"blk.{number}."
    known = family.names.get(part)
    return None if known is None else f"{prefix}{known}.{kind}"
