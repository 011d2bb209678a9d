"""Batches for InfoNCE, in which ids coincide, a document has none and some queries have two positives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

GROUP = 3


def infonce_batch(
    num_queries: int, dim: int = 7, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    num_documents = num_queries * GROUP

    def embeddings(rows: int) -> torch.Tensor:
        return F.normalize(
            torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1
        ).to(dtype)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(-1, num_documents // 2 + 1, shape, generator=generator)

    first = torch.arange(num_queries) * GROUP
    second = (first + 1).where(torch.rand(num_queries, generator=generator) < 0.5, -1)
    return {
        "query": embeddings(num_queries),
        "document": embeddings(num_documents),
        "positives": torch.stack([first, second], 1),
        "query_ids": torch.randint(0, max(num_queries - 1, 1), (num_queries,), generator=generator),
        "document_ids": ids(num_documents),
        "known_positives": ids(num_queries, 2),
        "owners": torch.arange(num_queries).repeat_interleave(GROUP),
    }


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    return infonce_batch


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a few queries into several tiles, the last of them shorter."""
    monkeypatch.setattr("embedtrain.ops.infonce.plan.TILE_BYTES", 1)
    monkeypatch.setattr("embedtrain.ops.infonce.plan.FEWEST_ROWS", 4)
