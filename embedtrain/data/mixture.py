"""Which rows train at which step: a pure function of seed and step.

No state is kept, so resuming at step 7,000 needs only the number 7,000, every rank computes the same answer
without a message, and no permutation of a billion rows is ever held in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
Keys = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Draw:
    """The rows of one step: all from one source.

    ``bounds`` are the first and the last row (exclusive) of the part that is to be built; None builds all.
    What is drawn for a row depends on its place in the step alone, never on how the step is cut. ``cuts`` are the
    places where it may be cut, all of them where None.
    """

    step: int
    source: int
    rows: NDArray[np.int64]
    bounds: tuple[int, int] | None = None
    cuts: NDArray[np.int64] | None = None
    share: tuple[int, int] = (0, 1)
    """Which rank builds it, and how many ranks build a part each."""

    @property
    def places(self) -> range:
        """Where the rows to be built stand in the step."""
        return range(*(self.bounds or (0, len(self.rows))))

    @property
    def own_rows(self) -> NDArray[np.int64]:
        """The rows to be built."""
        return self.rows[self.places.start : self.places.stop]

    def part(self, number: int, parts: int) -> "Draw":
        """Return one of ``parts`` parts that differ by one row at most, or by what must stay together."""
        first, rows = self.places.start, len(self.places)
        bounds = (first + rows * number // parts, first + rows * (number + 1) // parts)
        if self.cuts is not None:
            start, stop = self.cuts[np.searchsorted(self.cuts, bounds)].tolist()
            bounds = (start, stop)
        return replace(self, bounds=bounds)

    def side_by_side(self, keys: NDArray[np.int64]) -> "Draw":
        """Return the step with rows of one key after each other and never cut apart; -1 is no key.

        A step without keys is returned as it is.
        """
        if (keys < 0).all():
            return self
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        group = np.where(keys < 0, np.arange(len(keys)), first[place])
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        return replace(self, rows=self.rows[order], cuts=np.append(starts, len(keys)))


@dataclass(frozen=True)
class Cut:
    """How a step's rows are cut: into micro-batches one after another, each among ranks."""

    micro_batches: int = 1
    rank: int = 0
    ranks: int = 1

    def part(self, step: Draw, number: int) -> Draw:
        """Return this rank's part of a micro-batch."""
        own = step.part(number, self.micro_batches).part(self.rank, self.ranks)
        return replace(own, share=(self.rank, self.ranks))


class Mixture:
    """Draws each step's batch from one source, without replacement within an epoch of that source.

    Args:
        sizes: Rows of each source.
        weights: Relative share of steps of each source.
        batch_size: Rows of a batch, of each source where they differ.
        num_steps: Steps that will be asked for.
        seed: Changes both the order of sources and the order of rows.
        consecutive: Of each source, whether a batch holds rows that follow one another in it; none if left out.
        keys: For each source, what says which of some rows belong together (:meth:`Draw.side_by_side`).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        *,
        batch_size: int | Sequence[int],
        num_steps: int,
        seed: int,
        consecutive: Sequence[bool] | None = None,
        keys: Sequence[Keys] = (),
    ) -> None:
        self._keys = keys
        several = [batch_size] * len(sizes) if isinstance(batch_size, int) else batch_size
        self.batch_sizes = list(several)
        in_blocks = consecutive or [False] * len(sizes)
        self._permutations: list[Permutation | Blocks] = [
            Blocks(size, batch, seed * 1_000_003 + i)
            if whole
            else Permutation(size, seed * 1_000_003 + i)
            for i, (size, batch, whole) in enumerate(
                zip(sizes, self.batch_sizes, in_blocks, strict=True)
            )
        ]
        share = np.asarray(weights, dtype=np.float64)
        self._source = np.random.default_rng([seed, 1]).choice(
            len(sizes), size=num_steps, p=share / share.sum()
        )
        self._visit = np.zeros(num_steps, dtype=np.int64)
        for source in range(len(sizes)):
            chosen = self._source == source
            self._visit[chosen] = np.arange(chosen.sum())

    def draw(self, step: int) -> Draw:
        """Return the rows of a step; a batch may span the end of an epoch and the start of the next."""
        source = int(self._source[step])
        permutation = self._permutations[source]
        size = self.batch_sizes[source]
        places = self._visit[step] * size + np.arange(size)
        epochs, within = np.divmod(places, permutation.size)
        rows = np.concatenate(
            [permutation(within[epochs == epoch], int(epoch)) for epoch in np.unique(epochs)]
        )
        draw = Draw(step, source, rows)
        return draw.side_by_side(self._keys[source](rows)) if self._keys else draw


def mixture_weights(
    sizes: Sequence[float | int], weights: Sequence[float | None], exponent: float
) -> list[float]:
    """Return the weight of each source: its own where given, else ``size ** exponent``, sizes in batches.

    ``exponent`` 1 draws in proportion to size, 0 equally often; between them small sources are favoured
    without drowning in repetition.
    """
    return [
        float(size) ** exponent if weight is None else weight
        for size, weight in zip(sizes, weights, strict=True)
    ]


class Permutation:
    """A pseudo-random permutation of ``range(size)`` in constant memory.

    A Feistel network on the smallest even number of bits that holds ``size``; values outside the range
    are sent through again until they fall inside (cycle walking), which keeps it one to one.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed
        self._half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self._mask = (np.uint64(1) << self._half) - np.uint64(1)

    def __call__(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return the row at each place of an epoch's order."""
        keys = np.random.default_rng([self._seed, epoch]).integers(
            0, 2**63, size=ROUNDS, dtype=np.uint64
        )
        values = self._shuffle(places.astype(np.uint64), keys)
        while (outside := values >= self.size).any():
            values[outside] = self._shuffle(values[outside], keys)
        return values.astype(np.int64)

    def _shuffle(self, values: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        mixed: NDArray[np.uint64] = (left << self._half) | right
        return mixed


class Blocks:
    """A pseudo-random order of blocks of rows that follow one another; what is left at an end is another part each epoch.

    Args:
        num_rows: Rows there are.
        length: Rows of a block; of fewer rows all are one.
        seed: Changes the order.
    """

    def __init__(self, num_rows: int, length: int, seed: int) -> None:
        self._length = length = min(length, num_rows)
        self._blocks = Permutation(num_rows // length, seed)
        self._left = num_rows % length
        self._seed = seed
        self.size = num_rows - self._left

    def __call__(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return the row at each place of an epoch's order."""
        first = np.random.default_rng([self._seed, epoch, 1]).integers(self._left + 1)
        blocks, within = np.divmod(places, self._length)
        rows: NDArray[np.int64] = self._blocks(blocks, epoch) * self._length + within + first
        return rows


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit values; the finaliser of splitmix64 (Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
