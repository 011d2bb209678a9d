r"""The definition of attention over texts that lie end to end, in plain torch.

Signature and meaning are those of flash attention's ``flash_attn_varlen_func``. For query $i$ and key $j$ of one
text with $T_q$ queries and $T_k$ keys, $s_{ij} = \text{scale} \cdot q_i^\top k_j$, where $j$ is seen if

$$i + T_k - T_q - \text{left} \le j \le i + T_k - T_q + \text{right}$$

(ends included; -1 is no limit; causal means right = 0). The last query thus stands beside the last key. A query that
sees no key gets zeros.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from embedtrain.models.backbone.attention.rules import Rules, Window, band


def flash_attn_varlen_func(
    q: Float[Tensor, "queries heads head_dim"],
    k: Float[Tensor, "keys key_heads head_dim"],
    v: Float[Tensor, "keys key_heads head_dim"],
    cu_seqlens_q: Int32[Tensor, " texts_and_one"],
    cu_seqlens_k: Int32[Tensor, " texts_and_one"],
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: None = None,
    deterministic: bool = False,  # noqa: ARG001 - it is
    return_attn_probs: bool = False,
    block_table: None = None,
) -> Float[Tensor, "queries heads head_dim"]:
    """Attend within each text; computed in float32 at least, returned in the type of ``q``.

    Raises:
        ValueError: If slopes, probabilities or a table of blocks are asked for, which nothing here uses, or a
            longest length is wrong.
    """
    if alibi_slopes is not None or return_attn_probs or block_table is not None:
        raise ValueError("no slopes, probabilities or blocks are known here")
    query_sizes, key_sizes = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    if max(query_sizes) != max_seqlen_q or max(key_sizes) != max_seqlen_k:
        raise ValueError("max_seqlen is not the length of the longest text")
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    rules = Rules(scale, window_size, causal, dropout_p, softcap)
    keys, values = torch.split(k, key_sizes), torch.split(v, key_sizes)
    texts = zip(torch.split(q, query_sizes), keys, values, strict=True)
    return torch.cat([_one_text(*text, rules) for text in texts]).to(q.dtype)


def _one_text(q: Tensor, k: Tensor, v: Tensor, rules: Rules) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k, v = (x.to(dtype).transpose(0, 1) for x in (q, k, v))
    k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
    scores = capped(q @ k.mT * rules.scale, rules.softcap)
    num_queries, num_keys = scores.shape[-2:]
    places = torch.arange(num_keys - num_queries, num_keys, device=q.device)
    seen = band(places, torch.arange(num_keys, device=q.device), rules.reach)
    weights = F.dropout(masked_softmax(scores, seen), rules.dropout)
    return (weights @ v).transpose(0, 1)


def capped(scores: Float[Tensor, "..."], softcap: float) -> Float[Tensor, "..."]:
    """Bend scores so that none is beyond the cap; 0 leaves them."""
    return softcap * torch.tanh(scores / softcap) if softcap else scores


def masked_softmax(scores: Float[Tensor, "..."], seen: Tensor) -> Float[Tensor, "..."]:
    """Return weights that are 0 where nothing is seen, also in rows that see nothing at all."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~seen, lowest).softmax(-1).masked_fill(~seen, 0)
