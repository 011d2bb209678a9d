"""What it took to score pairs."""

from dataclasses import astuple, dataclass


@dataclass
class PairWork:
    """Counts of what a scorer has computed; it adds to them as it goes."""

    pairs: int = 0
    tokens: int = 0
    """Without padding; 0 where texts are encoded apart."""
    padding: int = 0
    """Places that were computed and held no token."""
    cut_documents: int = 0
    """Pairs whose texts were too long to be read whole."""
    shared_tokens: int = 0
    """Of the tokens, those that were not computed again because another pair begins with them too."""

    def __sub__(self, before: "PairWork") -> "PairWork":
        """Return what was added since."""
        return PairWork(
            *(now - then for now, then in zip(astuple(self), astuple(before), strict=True))
        )
