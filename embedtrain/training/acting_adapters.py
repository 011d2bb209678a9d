"""Which adapters act in a step, and that the others do not move in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.models.backbone.named_adapters import NamedAdapters
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.types import Side

SIDES: tuple[Side, ...] = ("query", "document")


class ActingAdapters:
    """Lets the adapters of a batch's source act, where a model has several.

    Adapters that have no part in a step get a gradient of 0, for which other ranks wait, and then none: AdamW would move
    them by their decay and their momentum.
    """

    def __init__(self, model: nn.Module, tasks: Sequence[str | None]) -> None:
        self._model = model if isinstance(model, DenseEncoder) else None
        self._tasks = tasks
        self._used: set[str] = set()

    @property
    def adapters(self) -> NamedAdapters | None:
        """Those of the model, if it has several."""
        return None if self._model is None else self._model.adapters

    @contextmanager
    def of_source(self, source: int) -> Iterator[None]:
        """Let the adapters of a source act, whose number is that of the recipe."""
        task = self._tasks[source] if self._tasks else None
        if self.adapters is None or self._model is None or task is None:
            yield
            return
        before = self._model.contract
        chosen = before.adapters and before.adapters.under(task)
        assert chosen is not None
        self._used |= {chosen.active.of(side) for side in SIDES}
        self._model.contract = before.model_copy(update={"adapters": chosen})
        try:
            yield
        finally:
            self._model.contract = before

    def reach_all(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the loss with a gradient of 0 for all adapters."""
        return loss if self.adapters is None else loss + 0 * self.adapters.total()

    def forget_idle(self) -> None:
        """Take the gradients from adapters that had no part in the step."""
        if self.adapters is None or not self._used:
            return
        for name in set(self.adapters.names) - self._used:
            for parameter in self.adapters.parameters_of(name):
                parameter.grad = None
        self._used.clear()
