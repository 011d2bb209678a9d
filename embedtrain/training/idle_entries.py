"""Entries of codes that no text has: how many optimizer steps each has been idle."""

from torch import Tensor, nn

from embedtrain.models.sparse.code_head import CodeHead
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.training.ranks.means import any_row
from embedtrain.types import RetrievalOutputs


class IdleEntries:
    """Counts in the head of a model, whose weights a checkpoint keeps, and once for a step.

    However often the forward pass runs, for chunks that are encoded again, micro-batches or batches that ran out of
    memory, a step counts once; an entry that any text of any rank has is not idle.
    """

    def __init__(self, model: nn.Module) -> None:
        head = model.head if isinstance(model, SparseEncoder) else None
        self.head = head if isinstance(head, CodeHead) else None
        self._found: Tensor | None = None

    def look(self, outputs: RetrievalOutputs) -> None:
        """Note which entries the texts of a batch have."""
        if self.head is None:
            return
        assert isinstance(outputs.query, Tensor)
        assert isinstance(outputs.document, Tensor)
        found = any_row(outputs.query, outputs.document)
        self._found = found if self._found is None else self._found | found

    def step_done(self) -> None:
        """Count the step."""
        if self.head is None or self._found is None:
            return
        idle = self.head.idle_steps
        idle.copy_((idle + 1).masked_fill(self._found, 0))
        self._found = None
