"""The whole numbers of an InfoNCE problem, where they can be read without waiting."""

from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor


class HostIds(NamedTuple):
    """The whole numbers of a problem on the CPU: they decide shapes, and a device would have to be asked."""

    rows: Int64[Tensor, " queries"]
    own_rows: Int64[Tensor, " queries"]
    owners: Int64[Tensor, " documents"] | None
    positives: Int64[Tensor, "queries positives"]
    document_ids: Int64[Tensor, " documents"] | None
    relevant_ids: Int64[Tensor, "queries relevant"]
    query_ids: Int64[Tensor, " queries"] | None
    all_query_ids: Int64[Tensor, " all_queries"] | None
    all_relevant_ids: Int64[Tensor, "all_queries all_relevant"] | None

    @property
    def filled(self) -> Int64[Tensor, "queries positives"]:
        """The positives with unused entries replaced by the first."""
        return self.positives.where(self.positives >= 0, self.positives[:, :1])
