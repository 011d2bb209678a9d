"""How much is spent on what is around training, from thorough to frugal."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Depth:
    """How thorough the work around training is."""

    dev: tuple[int, int]
    """Queries and documents that validation measures on at most: often, so they are few where time is short."""
    searched: int | None
    """Documents that the gate searches at most, of each piece of data; what answers a query is always among them."""
    queries: int = 20_000
    """That are made at most: more than train in the time only take some of it."""
    reads: bool = True
    """Whether the start reads beside BM25 in the round trip, for which it encodes every chunk."""
    mines: bool = True
    """Whether there is a second trial with mined negatives."""
    reranks: bool = False
    """Whether a reranker judges what was mined and teaches, for two more trials."""
    guides: bool = False
    """Whether there is a trial more in which the start leaves out what it finds better than the positive."""
    chooses: bool = True
    """Whether mixtures of start and trained model are measured; else a trial's best weights go to the gate."""
    validates: bool = True
    """Whether the start and steps are measured while training; else the last weights go to the gate, and what would have
    chosen trains."""


FRUGAL = Depth((100, 250), 1_000, 2_500, reads=False, mines=False)
DEPTHS = (
    Depth((500, 2_000), None),
    Depth((300, 1_000), 5_000),
    Depth((200, 500), 2_000, 8_000),
    Depth((200, 500), 2_000, 8_000, mines=False),
    Depth((200, 500), 2_000, 4_000, reads=False, mines=False),
    FRUGAL,
    replace(FRUGAL, dev=(50, 100), searched=500),
    replace(FRUGAL, dev=(50, 100), searched=500, queries=1_500, chooses=False),
)
"""The first is taken that leaves training the time that it needs, or half of all; a short budget shrinks what is measured on."""
RERANKING = tuple(replace(depth, reranks=True) for depth in DEPTHS if depth.mines)
"""Tried where there is a reranker: its trials must take no step from the others."""
