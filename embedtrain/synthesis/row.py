"""A candidate on its way through the filters: nothing that was written is thrown away."""

from dataclasses import dataclass, field

from embedtrain.data.documents.document import Chunk
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.settings import MAKERS


@dataclass
class Row:
    """A candidate, its chunk, and what the filters said."""

    candidate: Candidate
    chunk: Chunk
    taken_by: str = ""
    """The first filter that took it; empty if it is kept, ``joined`` if its query is that of another row, which then
    has this row's positive too."""
    rank: int | None = None
    """Where the round trip found its document, from 1; None if it did not, or was not made."""
    also: list["Row"] = field(default_factory=list)
    """Rows of the same query that joined this one."""

    @property
    def kept(self) -> bool:
        """Whether no filter has taken it."""
        return not self.taken_by

    @property
    def unit(self) -> str:
        """What is held out, or not, with it: see :attr:`embedtrain.data.documents.document.Chunk.unit`."""
        return self.chunk.unit

    @property
    def by_rule(self) -> bool:
        """Whether no language model wrote it."""
        return self.candidate.maker in MAKERS
