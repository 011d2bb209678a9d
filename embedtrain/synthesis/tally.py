"""What became of the requests of a language model that writes."""

from collections import Counter
from dataclasses import dataclass, field

from embedtrain.encoding.language.chat import Failure


@dataclass
class Tally:
    """What became of the requests of this run."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    """Why answers could not be used."""
    ended: str = ""
    """Why not all was asked, or answered."""
    requests: int = 0
    """That were wanted, known or not."""
    failures: list[Failure] = field(default_factory=list)
    """Why requests brought no answer."""

    def failed(self) -> str:
        """Say how many requests brought no answer, and why most did not; empty if all did."""
        if not self.failures:
            return ""
        reason, _ = Counter(one.reason for one in self.failures).most_common(1)[0]
        return f"{len(self.failures):,} of {self.requests:,} requests brought no answer ({reason})"
