"""The heads that the families of transformers have for classes, on states without padding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.texts import Pooling
from embedtrain.models.pooling import pool

FIRST = ("pooler", "pre_classifier", "head")
"""What the families call the layer between the pooled state and the last one."""
LAST = ("classifier", "score")


class ClassifierHead(nn.Module):
    """What a sequence classifier computes of a text's states, in float32 at least.

    Its layers are taken out of the classifier, so that the backbone computes states and nothing else.

    Args:
        whole: A ``...ForSequenceClassification`` of transformers.

    Raises:
        LookupError: If it has no last layer of a known name.
    """

    def __init__(self, whole: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        found = dict(whole.named_children())
        base = whole.base_model
        last = next((found[name] for name in LAST if name in found), None)
        if last is None:
            raise LookupError(f"none of {LAST} is among {sorted(found)}")
        name = next((name for name in FIRST if name in found), "")
        first = found.get(name, getattr(base, "pooler", None))
        self.in_base = first is not None and name == ""
        """Whether the first layer is a pooler that the backbone itself would run."""
        if self.in_base:
            base.pooler = None
        self.first, self.last = first, last
        self.dropout = found.get("dropout") or found.get("drop") or nn.Identity()
        self.pooling: Pooling = getattr(base.config, "classifier_pooling", None) or "cls"
        if "score" in found:
            self.pooling = "last_token"
        self._takes_tokens = name in ("", "pooler")
        self._rectifies = name == "pre_classifier"

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts classes"]:
        """Return what the classifier says of each text."""
        state = pool(states, lengths, self.pooling)
        with torch.autocast(state.device.type, enabled=False):
            return self.logits(state)

    def logits(self, state: Float[Tensor, "texts width"]) -> Float[Tensor, "texts classes"]:
        """Return what the classifier says of a text's pooled state."""
        if self.first is not None:
            # Poolers take the first token of a text themselves.
            state = self.first(state[:, None] if self._takes_tokens else state)
            state = self.dropout(state.relu() if self._rectifies else state)
        single = isinstance(self.last, nn.Linear)
        logits: Tensor = self.last(state if single else state[:, None])
        return logits

    @contextmanager
    def returned(self, whole: Any) -> Iterator[None]:  # noqa: ANN401 - transformers is untyped
        """Put back what was taken out of the backbone, to save the classifier as a whole."""
        if self.in_base:
            whole.base_model.pooler = self.first
        try:
            yield
        finally:
            if self.in_base:
                whole.base_model.pooler = None


@torch.no_grad()
def keep_one_class(whole: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Make one output of two, in place: the second class's logit less the first's, which says the same."""
    name = next(name for name in LAST if hasattr(whole, name))
    layer = getattr(whole, name)
    owner, name = (whole, name) if isinstance(layer, nn.Linear) else (layer, "out_proj")
    two = getattr(owner, name)
    one = nn.Linear(two.in_features, 1, bias=two.bias is not None)
    one.weight.copy_(two.weight[1:] - two.weight[:1])
    if two.bias is not None:
        one.bias.copy_(two.bias[1:] - two.bias[:1])
    setattr(owner, name, one)
    whole.config.num_labels = whole.num_labels = 1
