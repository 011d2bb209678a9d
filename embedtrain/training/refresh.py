"""Mining again while training: the settings, and batches that are built at the step that needs them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from embedtrain.data.mixture import Mixture
from embedtrain.mining.settings import MiningConfig
from embedtrain.section import Count, Section
from embedtrain.training.datamodule import BatchStream

Batch = TypeVar("Batch")


class RefreshConfig(Section):
    """Mine new negatives with the model itself every so many steps (ANCE).

    Until the first refresh, training reads ``data.sources``, whose negatives should come from another search
    such as BM25; after it, the rows mined last.

    Source: Xiong et al. (2021), https://arxiv.org/abs/2007.00808.
    """

    path: str
    """What is mined: a BEIR folder, ``python_docs``, or a file of training rows."""
    split: str = "train"
    """Which judgments, where there are splits."""
    every_steps: Count
    """Steps between two minings; the model of that very step mines."""
    mining: MiningConfig = MiningConfig()
    """As for ``embedtrain mine``; its ``epoch`` counts the refreshes."""


class LateStream(BatchStream[Batch]):
    """Yields promises of batches: Lightning fetches one ahead, when the weights are those of a step before.

    ``build`` makes the batch of a step when the step begins; ``stop`` is exclusive.
    """

    def __init__(
        self, mixture: Mixture, build: Callable[[int], Batch], start: int, stop: int
    ) -> None:
        super().__init__(mixture, lambda draw: build(draw.step), start, stop)

    def __iter__(self) -> Iterator[Any]:
        for place in self.places:
            yield partial(self.build, *place)
