r"""Vectors of spans from inside a layer: the value vector at a span's last token, behind two layers that are trained.

$$e_S = W_2\, \mathrm{SiLU}(W_1 v_t + b_1) + b_2, \quad v_t = W_V h_t, \quad t \text{ the last token of } S$$

Values of a middle layer tell kinds of entities apart better than the last states do. The layer is the last one that
``model.num_layers`` keeps; ``model.train: [pooling]`` leaves the backbone as it is.

Source: Shachar et al. (2025), NER Retriever, https://arxiv.org/abs/2509.04011.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class ValueSpansConfig(Section):
    """Take a span's vector from the value vector of its last token."""

    hidden: Count = 500
    """Width between the two layers."""
    dim: Count = 500
    """Dimension of the vectors."""


class ValueSpans(SavedPart):
    """The two layers behind a value vector."""

    weights_file = "value_spans.safetensors"

    def __init__(self, width: int, config: ValueSpansConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(width, config.hidden)
        self.outer = nn.Linear(config.hidden, config.dim)

    def forward(self, values: Float[Tensor, "spans width"]) -> Float[Tensor, "spans dim"]:
        """Return the vectors of spans, in float32 at least; they are not normalised."""
        values = values.to(self.inner.weight.dtype)  # a frozen backbone may be in bfloat16
        return widen(self.outer(F.silu(self.inner(values))))
