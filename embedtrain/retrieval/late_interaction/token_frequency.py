"""In how many texts of a corpus each token occurs, and how rare that makes it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.errors import UserError
from embedtrain.types import TokenVectors


@dataclass(frozen=True)
class TokenFrequencies:
    """Sorted ids and the number of texts that contain each."""

    ids: Int64[np.ndarray, " distinct"]
    counts: Int64[np.ndarray, " distinct"]
    num_texts: int

    @classmethod
    def count(cls, vectors: TokenVectors) -> "TokenFrequencies":
        """Count, for each id, the texts that contain it."""
        if vectors.ids is None:
            raise UserError(
                "token frequencies", "need ids of the tokens", cure="Encode the documents with ids"
            )
        ids, inverse = np.unique(vectors.ids, return_inverse=True)
        texts = np.repeat(np.arange(len(vectors)), vectors.lengths)
        once = np.unique(inverse.astype(np.int64) * len(vectors) + texts)
        return cls(ids, np.bincount(once // len(vectors), minlength=len(ids)), len(vectors))

    def inverse(self, ids: Int64[np.ndarray, " tokens"]) -> Float64[np.ndarray, " tokens"]:
        """Return the inverse document frequency ``ln((N + 1) / (df + 1))``; an unknown id has df 0."""
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        counts = np.where(self.ids[places] == ids, self.counts[places], 0)
        result: Float64[np.ndarray, " tokens"] = np.log((self.num_texts + 1) / (counts + 1))
        return result
