"""Machine-independent proof of cost: how many GEMMs run, and how large the largest tensor is."""

import pytest
import torch
from padded_texts import padded_grouped, padded_maxsim, padded_xtr
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from embedtrain.ops import linear_cross_entropy as linear_cross_entropy_module
from embedtrain.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
)
from embedtrain.ops.maxsim import token_maximum
from embedtrain.ops.vocabulary_max import vocabulary_max, vocabulary_max_reference

QUERIES, QUERY_TOKENS, DOCUMENTS, DOCUMENT_TOKENS, DIM = 8, 16, 12, 32, 8
TILE = 2**12
VOCABULARY = 512


class LargestStorage(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                size = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, size)
        return result


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def all_pairs(backend="chunked"):
    masks = (
        torch.ones(QUERIES, QUERY_TOKENS, dtype=torch.bool),
        torch.ones(DOCUMENTS, DOCUMENT_TOKENS, dtype=torch.bool),
    )
    query, document = random(QUERIES, QUERY_TOKENS, DIM), random(DOCUMENTS, DOCUMENT_TOKENS, DIM)
    return padded_maxsim(query, document, *masks, backend=backend).sum()


def groups(backend="chunked"):
    query, document = random(QUERIES, 64, DIM), random(QUERIES, 3, DOCUMENT_TOKENS, DIM)
    masks = (torch.ones(t.shape[:-1], dtype=torch.bool) for t in (query, document))
    return padded_grouped(query, document, *masks, backend=backend).sum()


def retrieved(backend="chunked"):
    query, document = random(QUERIES, QUERY_TOKENS, DIM), random(DOCUMENTS, DOCUMENT_TOKENS, DIM)
    masks = (torch.ones(t.shape[:-1], dtype=torch.bool) for t in (query, document))
    return padded_xtr(query, document, *masks, 20, backend=backend).sum()


def pooled(backend="chunked"):
    lengths = torch.full((DOCUMENTS,), DOCUMENT_TOKENS)
    hidden, weight = random(DOCUMENTS * DOCUMENT_TOKENS, DIM), random(VOCABULARY, DIM)
    form = vocabulary_max_reference if backend == "reference" else vocabulary_max
    return form(hidden, lengths, weight, random(VOCABULARY)).sum()


def labelled(backend="chunked", ignored=0, frozen_head=False):
    labels = torch.arange(256) % VOCABULARY
    labels[:ignored] = -100
    hidden, weight = random(256, DIM), random(VOCABULARY, DIM).requires_grad_(not frozen_head)
    form = linear_cross_entropy_reference if backend == "reference" else linear_cross_entropy
    return form(hidden, weight, labels, random(VOCABULARY))


GRID = {
    all_pairs: QUERIES * QUERY_TOKENS * DOCUMENTS * DOCUMENT_TOKENS,
    groups: QUERIES * 64 * 3 * DOCUMENT_TOKENS,
    retrieved: QUERIES * QUERY_TOKENS * DOCUMENTS * DOCUMENT_TOKENS,
    pooled: DOCUMENTS * DOCUMENT_TOKENS * VOCABULARY,
    labelled: 256 * VOCABULARY,
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(token_maximum, "CPU_TILE", TILE)
    monkeypatch.setattr(token_maximum, "ENTRIES", TILE)
    monkeypatch.setattr(linear_cross_entropy_module, "CPU_TILE", 4 * TILE)


def count_gemms(operation, **options):
    with FlopCounterMode(display=False) as counter:
        operation(**options).backward()
    return counter.get_total_flops() / (2 * GRID[operation] * DIM)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [(all_pairs, 1), (groups, 1), (retrieved, 1), (pooled, 1), (labelled, 3)],
)
def test_forward_and_backward_run_exactly_this_many_gemms(operation, expected):
    assert count_gemms(operation) == expected
    # The reference of groups scores all pairs of queries and documents.
    assert count_gemms(operation, backend="reference") == 3 * (
        QUERIES if operation is groups else 1
    )


def test_unlabelled_rows_are_dropped_before_the_first_gemm():
    assert count_gemms(labelled, ignored=192) == 3 / 4


def test_a_frozen_head_saves_its_gemm():
    assert count_gemms(labelled, frozen_head=True) == 2


def test_the_loss_alone_needs_one_gemm():
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        labelled()
    assert counter.get_total_flops() == 2 * GRID[labelled] * DIM


PARAMETERS = DIM * QUERIES * 3 * DOCUMENT_TOKENS
LARGEST = {
    all_pairs: TILE,
    groups: 3 * QUERIES * 3 * 64,  # three integers for each query token of each pair
    retrieved: TILE + QUERIES * QUERY_TOKENS * 20,  # a tile beside the best 20 so far of each row
    pooled: DOCUMENTS * VOCABULARY,  # the result itself
    labelled: 4 * TILE,
}


@pytest.mark.parametrize("operation", GRID)
def test_no_tensor_is_larger_than_one_tile(operation):
    budget = max(LARGEST[operation], PARAMETERS)
    assert budget < GRID[operation] / 2
    with LargestStorage() as largest:
        operation().backward()
    assert largest.elements <= budget
    with LargestStorage() as largest:
        operation(backend="reference").backward()
    assert largest.elements >= GRID[operation]
