"""Batches that other processes build, ahead of the steps that need them.

A batch is a function of its place alone, so whoever builds it makes no difference: order, resumption and the cut into
micro-batches and ranks are those of the stream.
"""

import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from embedtrain.models.backbone.loading import preferred_device
from embedtrain.training.datamodule import BatchStream
from embedtrain.training.refresh import LateStream
from embedtrain.training.settings import TrainerConfig
from embedtrain.workers import workers

ON_GPU = 2
"""Processes where the recipe says nothing: one builds while the other sends."""
Ask = Callable[[bytes], Future[bytes]]


def num_workers(config: TrainerConfig, stream: BatchStream[Any]) -> int:
    """Return how many processes build batches; none where a batch needs the model of its own step."""
    if isinstance(stream, LateStream):
        return 0
    if config.workers is not None:
        return config.workers
    return ON_GPU if preferred_device(config.accelerator).type == "cuda" else 0


@contextmanager
def built_ahead(stream: BatchStream[Any], number: int, prefetch: int) -> Iterator[BatchStream[Any]]:
    """Yield a stream of the same batches, built by ``number`` processes, each ``prefetch`` ahead.

    Raises:
        UserError: From the stream, if one of the processes has died.
    """
    if number == 0:
        yield stream
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        workers("embedtrain.data.batch_worker", number, "trainer.workers") as ask,
    ):
        path = Path(folder) / "stream.pickle"
        path.write_bytes(pickle.dumps((stream.mixture, stream.cut, stream.builder)))
        yield _StreamAhead(stream, partial(_ask, ask, path), number * prefetch)


def _ask(ask: Ask, path: Path, step: int, number: int) -> Future[bytes]:
    return ask(pickle.dumps((path, step, number)))


class _StreamAhead(BatchStream[Any]):
    """Asks other processes for batches before they are needed; ``most`` are asked for and not yet taken."""

    def __init__(
        self, stream: BatchStream[Any], ask: Callable[[int, int], Future[bytes]], most: int
    ) -> None:
        super().__init__(stream.mixture, stream.builder, stream.start, stream.stop, stream.cut)
        self.ask = ask
        self.most = most

    def __iter__(self) -> Iterator[Any]:
        asked: deque[Future[bytes]] = deque()
        for place in self.places:
            asked.append(self.ask(*place))
            if len(asked) > self.most:
                yield _opened(asked.popleft())
        while asked:
            yield _opened(asked.popleft())


def _opened(answer: Future[bytes]) -> Any:  # noqa: ANN401 - of any kind
    return pickle.loads(answer.result()).open("cpu")
