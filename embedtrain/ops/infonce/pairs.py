"""Which tile entries an id excludes, found by search in sorted keys: the cost grows with the matches.

All of it happens on the CPU, where their number is known without waiting for a device.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True)
class Matches:
    """For each row and each key it asks for, a run of ``columns`` that hold the key."""

    columns: Int64[Tensor, " keys"]
    starts: Int64[Tensor, "rows wanted"]
    counts: Int64[Tensor, "rows wanted"]
    chunk_rows: int
    chunk_pairs: list[int]
    """Number of pairs of each chunk of rows."""

    def pairs(self, chunk: int) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
        """Return row (within the chunk) and column of each match of a chunk."""
        rows = slice(chunk * self.chunk_rows, (chunk + 1) * self.chunk_rows)
        counts, starts = self.counts[rows].flatten(), self.starts[rows].flatten()
        entries = torch.arange(len(counts))
        entry = entries.repeat_interleave(counts, output_size=self.chunk_pairs[chunk])
        first = starts - (counts.cumsum(0) - counts)
        position = torch.arange(self.chunk_pairs[chunk]) + first[entry]
        return entry // self.counts.shape[1], self.columns[position]

    def listed(self) -> Int64[Tensor, "rows longest"]:
        """Return all columns of each row, -1 at the end of shorter rows; for one wanted key per row."""
        longest = torch.arange(max(int(self.counts.max()), 1))
        position = (self.starts + longest).clamp_max(len(self.columns) - 1)
        return self.columns[position].masked_fill(longest >= self.counts, -1)


def match(
    wanted: Int64[Tensor, "rows wanted"],
    keys: Int64[Tensor, " keys"],
    chunk_rows: int,
    columns: Int64[Tensor, " keys"] | None = None,
) -> Matches:
    """Find the columns whose key a row wants; negative keys match nothing.

    ``columns`` names the column of each key where a column has several; by default key j is column j.
    """
    wanted = wanted.contiguous()
    ordered, order = keys.sort(stable=True)
    starts = torch.searchsorted(ordered, wanted)
    counts = torch.searchsorted(ordered, wanted, right=True) - starts
    counts = counts.masked_fill(wanted < 0, 0)
    chunks = torch.arange(len(wanted)) // chunk_rows
    totals = counts.new_zeros(-(-len(wanted) // chunk_rows)).index_add_(0, chunks, counts.sum(1))
    return Matches(
        columns=order if columns is None else columns[order],
        starts=starts,
        counts=counts,
        chunk_rows=chunk_rows,
        chunk_pairs=totals.tolist(),
    )
