"""The weak decoder of a masked autoencoder: transformer layers whose queries and context may differ."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embedtrain.errors import UserError

SPREAD = 0.02
"""Standard deviation of new weights, as in BERT."""


class DecoderLayer(nn.Module):
    """BERT's layer (norm after the residual) with a mask for each row, and a context of its own.

    Attention has no dropout.
    """

    def __init__(self, width: int, num_heads: int, inner_width: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.attended = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.attended_norm = nn.LayerNorm(width, eps=1e-12)
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.outer_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=SPREAD)
                nn.init.zeros_(part.bias)

    def forward(
        self,
        queries: Float[Tensor, "texts rows dim"],
        context: Float[Tensor, "texts columns dim"],
        visible: Bool[Tensor, "texts row columns"],
    ) -> Float[Tensor, "texts rows dim"]:
        """Let each row look at the visible columns (``row`` is 1 where all see the same).

        The residual path starts from ``queries``.
        """
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(queries), self.key(context), self.value(context))
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None])
        found = self.attended(found.transpose(1, 2).flatten(2))
        states = self.attended_norm(queries + self.dropout(found))
        inner = self.outer(F.gelu(self.inner(states)))
        output: Tensor = self.outer_norm(states + self.dropout(inner))
        return output


class Decoder(nn.Module):
    """Decoder layers, and positions where the encoder's embeddings have none.

    An encoder with rotary positions keeps them inside its attention. Without any, all rows of the enhanced
    decoder would be the same vector, so it learns a table of its own. ``num_positions`` is 0 where the
    encoder's embeddings have them.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        inner_width: int,
        num_layers: int,
        dropout: float,
        num_positions: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, num_heads, inner_width, dropout) for _ in range(num_layers)
        )
        self.positions = nn.Embedding(num_positions, width) if num_positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=SPREAD)

    def enhanced(
        self,
        queries: Float[Tensor, "texts rows dim"],
        context: Float[Tensor, "texts columns dim"],
        visible: Bool[Tensor, "texts rows columns"],
    ) -> Float[Tensor, "texts rows dim"]:
        """Rebuild each row from the context that it may see; no row ever holds its own token."""
        for layer in self.layers:
            queries = layer(queries, context, visible)
        return queries

    def plain(
        self, states: Float[Tensor, "texts rows dim"], visible: Bool[Tensor, "texts 1 rows"]
    ) -> Float[Tensor, "texts rows dim"]:
        """Run ordinary bidirectional layers."""
        for layer in self.layers:
            states = layer(states, states, visible)
        return states

    def copy_last_layers(self, encoder_layers: nn.ModuleList) -> None:
        """Start from the last layers of a BERT-like encoder instead of random weights.

        Raises:
            UserError: If the encoder's layers are of another kind, or fewer.
        """
        if len(encoder_layers) < len(self.layers) or not hasattr(encoder_layers[0], "intermediate"):
            raise UserError(
                "model.decoder.start",
                "last_layers needs a BERT or RoBERTa encoder of at least as many layers as the decoder",
                cure="Use random",
            )
        for mine, theirs in zip(
            self.layers, list(encoder_layers)[-len(self.layers) :], strict=True
        ):
            for own, other in _same_parts(mine, theirs):
                own.load_state_dict(other.state_dict())


def _same_parts(mine: Any, theirs: Any) -> list[tuple[nn.Module, nn.Module]]:  # noqa: ANN401 - untyped
    attention, result = theirs.attention.self, theirs.attention.output
    return [
        (mine.query, attention.query),
        (mine.key, attention.key),
        (mine.value, attention.value),
        (mine.attended, result.dense),
        (mine.attended_norm, result.LayerNorm),
        (mine.inner, theirs.intermediate.dense),
        (mine.outer, theirs.output.dense),
        (mine.outer_norm, theirs.output.LayerNorm),
    ]


def visible_by_position(
    inside: Bool[Tensor, "texts columns"],
    draws: Bool[Tensor, "texts columns draws"],
    picks: Tensor,
) -> Bool[Tensor, "texts columns columns"]:
    """Return what each row may see: all but what its own draw hides and itself; the first column always.

    Row 0 and the rows of padding have no label; they too see something, so that their softmax is defined.

    Source: Xiao et al. (2022), RetroMAE, https://arxiv.org/abs/2205.12035.
    """
    num_texts, width = inside.shape
    chosen = picks[:, :, None].expand(num_texts, width, width)
    hidden = draws.transpose(1, 2).gather(1, chosen)
    visible = ~hidden & inside[:, None, :]
    itself = torch.eye(width, dtype=torch.bool, device=inside.device)
    visible &= ~itself
    visible[:, 1:, 0] = True
    visible[:, 0, -1] |= ~visible[:, 0].any(1)
    return visible
