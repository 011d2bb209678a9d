"""Models as functions of padded ids and a mask, which exporters can trace: backbone, pooling, head.

Texts are padded on the right; a text without any token gives numbers too, though they mean nothing.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from embedtrain.contract.texts import Pooling
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder


class DenseGraph(nn.Module):
    """Ids and mask of padded texts to one vector per text."""

    def __init__(self, model: DenseEncoder) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.projection = model.projection
        self.pooling = model.contract.pooling
        self.normalize = model.contract.similarity == "cosine"

    def forward(
        self, input_ids: Int64[Tensor, "texts width"], attention_mask: Int64[Tensor, "texts width"]
    ) -> Float[Tensor, "texts dim"]:
        """Return what the model's own ``embed`` does."""
        return self.finish(_states(self.backbone, input_ids, attention_mask), attention_mask)

    def finish(
        self,
        states: Float[Tensor, "texts width hidden"],
        attention_mask: Int64[Tensor, "texts width"],
    ) -> Float[Tensor, "texts dim"]:
        """Return the vectors of texts whose tokens have these states."""
        pooled = pool_padded(states, attention_mask, self.pooling)
        if self.projection is not None:
            pooled = self.projection(pooled)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled


class StatesGraph(nn.Module):
    """What readers of ``model.onnx`` expect, who pool by themselves: token states; and the finished vectors."""

    def __init__(self, model: DenseEncoder) -> None:
        super().__init__()
        self.dense = DenseGraph(model)

    def forward(
        self,
        input_ids: Int64[Tensor, "texts width"],
        attention_mask: Int64[Tensor, "texts width"],
        token_type_ids: Int64[Tensor, "texts width"] | None = None,
    ) -> tuple[Float[Tensor, "texts width hidden"], Float[Tensor, "texts dim"]]:
        """Return the last states of all tokens, and one vector per text."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = _states(self.dense.backbone, input_ids, attention_mask, **types)
        return states, self.dense.finish(states, attention_mask)


class TokenGraph(nn.Module):
    """Ids and mask of padded texts to a vector per token, and which of them a document keeps.

    A query keeps all rows, its expansion included: give mask tokens with an attention of 0, or of 1 where the
    contract lets others attend to them.
    """

    def __init__(self, model: LateInteractionEncoder) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.projection = model.heads.projection
        self.normalize = model.contract.similarity == "cosine"
        self.register_buffer("skipped", model.skipped)
        self.skipped: Tensor

    def forward(
        self, input_ids: Int64[Tensor, "texts width"], attention_mask: Int64[Tensor, "texts width"]
    ) -> tuple[Float[Tensor, "texts width dim"], Bool[Tensor, "texts width"]]:
        """Return the vectors of all tokens and the mask of a document's."""
        projected = self.projection(_states(self.backbone, input_ids, attention_mask))
        vectors = F.normalize(projected, dim=-1) if self.normalize else projected
        skipped = (input_ids[:, :, None] == self.skipped).any(dim=-1)
        first = torch.arange(input_ids.shape[1], device=input_ids.device) == 0
        return vectors, (attention_mask > 0) & (~skipped | first)


class PairGraph(nn.Module):
    """Ids, mask and, where the model tells both texts apart, types of padded pairs to a score per pair."""

    def __init__(self, model: CrossEncoderModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head

    def forward(
        self,
        input_ids: Int64[Tensor, "pairs width"],
        attention_mask: Int64[Tensor, "pairs width"],
        token_type_ids: Int64[Tensor, "pairs width"] | None = None,
    ) -> Float[Tensor, "pairs classes"]:
        """Return what the model's own ``values`` does."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = _states(self.backbone, input_ids, attention_mask, **types)
        return self.head.logits(pool_padded(states, attention_mask, self.head.pooling))


def pool_padded(
    states: Float[Tensor, "texts width dim"],
    mask: Int64[Tensor, "texts width"],
    pooling: Pooling,
) -> Float[Tensor, "texts dim"]:
    """Pool as :func:`embedtrain.models.pooling.pool` does, for texts padded on the right."""
    weights = mask[:, :, None].to(states.dtype)
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last_token":
        last = (
            (mask.sum(dim=1, keepdim=True) - 1)
            .clamp(min=0)[:, :, None]
            .expand(-1, -1, states.shape[2])
        )
        return states.gather(1, last)[:, 0]
    if pooling == "max":
        lowest = torch.finfo(states.dtype).min
        return states.masked_fill(weights == 0, lowest).amax(dim=1)
    if pooling == "weighted_mean":
        weights = weights * (torch.arange(states.shape[1], device=states.device) + 1)[:, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _states(
    backbone: nn.Module, input_ids: Tensor, attention_mask: Tensor, **types: Tensor
) -> Float[Tensor, "texts width dim"]:
    output = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **types)
    states: Tensor = output.last_hidden_state
    return states
