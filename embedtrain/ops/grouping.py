"""Which documents each query brought."""

import torch
from jaxtyping import Int64
from torch import Tensor


def columns_by_owner(
    owners: Int64[Tensor, " documents"], num_queries: int
) -> Int64[Tensor, "queries group"]:
    """Return the columns of the documents that each of this process's queries brought, -1 unused.

    The width depends on the owners: where they lie on a device, this waits for it.
    """
    own = (owners < num_queries).nonzero()[:, 0]
    own = own[owners[own].argsort(stable=True)]
    counts = torch.bincount(owners[own], minlength=num_queries)
    within = torch.arange(len(own), device=owners.device)
    within = within - (counts.cumsum(0) - counts).repeat_interleave(counts)
    columns = owners.new_full((num_queries, int(counts.max())), -1)
    columns[owners[own], within] = own
    return columns
