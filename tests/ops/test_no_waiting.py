"""Operations ask a device for nothing: they run, forward and backward, where tensors have no numbers to give.

The device is ``meta``. Reading a number, a shape that depends on data, an index by a mask: each is an error
there, and makes the host wait on a GPU.
"""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from embedtrain.ops.contrast import contrast, contrast_nested
from embedtrain.ops.groups import score_groups, score_triplets, teacher_groups
from embedtrain.ops.infonce.nested import Sizes
from embedtrain.ops.infonce.problem import InfoNCEOptions
from embedtrain.ops.linear_cross_entropy import linear_cross_entropy
from embedtrain.ops.maxsim.scores import xtr_scores
from embedtrain.ops.row_blocks import candidate_masks, mean_over_queries
from embedtrain.ops.scored_pairs import scored_pairs
from embedtrain.ops.similarity import all_scores
from embedtrain.ops.vocabulary_max import vocabulary_max
from embedtrain.types import Relevance, RetrievalOutputs, TokenEmbeddings

QUERIES, GROUP, DIM = 6, 3, 8
BOTH = ("query_to_document", "document_to_query")
PLAIN = InfoNCEOptions()
OPTIONS = {
    "plain": PLAIN,
    "symmetric": InfoNCEOptions(directions=BOTH, partition="per_direction"),
    "all directions": InfoNCEOptions(directions=(*BOTH, "query_to_query", "document_to_document")),
    "own": InfoNCEOptions(negatives="own"),
    "others": InfoNCEOptions(negatives="others"),
    "guarded": InfoNCEOptions(false_negative_margin=0.1, label_smoothing=0.1, hardness=1.0),
}


@pytest.fixture(autouse=True)
def meta_knows_no_autocast(monkeypatch):
    """Torch refuses to switch autocast off where there is none."""
    autocast = torch.autocast

    def given(kind, *arguments, **settings):
        return nullcontext() if kind == "meta" else autocast(kind, *arguments, **settings)

    monkeypatch.setattr(torch, "autocast", given)


def in_blocks(outputs: RetrievalOutputs) -> Tensor:
    def loss(query, document, rows):
        return (all_scores(query, document) * candidate_masks(outputs, rows)[1]).sum(1)

    return mean_over_queries(outputs, loss, scores_at_once=20)


def grouped(outputs: RetrievalOutputs) -> Tensor:
    groups, _ = score_triplets(outputs, "this")
    return groups.scores.sum() + teacher_groups(outputs, score_groups(outputs)).sum()


EITHER_KIND: dict[str, Callable[[RetrievalOutputs], Tensor]] = {
    "infonce": lambda outputs: contrast(outputs, 0.1, PLAIN).loss,
    "symmetric": lambda outputs: contrast(outputs, 0.1, OPTIONS["symmetric"]).loss,
    "groups": grouped,
    "pairs": lambda outputs: scored_pairs(outputs).similarity.sum(),
    "blocks": in_blocks,
}


def outputs_of(kind: str) -> RetrievalOutputs:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(QUERIES)
    relevance = Relevance(
        query_ids=rows % 5,
        document_ids=torch.arange(QUERIES * GROUP) % 14,
        owners=rows.repeat_interleave(GROUP),
        positives=torch.stack([rows * GROUP, torch.where(rows % 2 == 0, rows * GROUP + 1, -1)], 1),
        known_positives=torch.full((QUERIES, 2), 3),
        teacher_scores=torch.rand(QUERIES * GROUP, generator=generator),
    )

    def texts(number: int, shortest: int) -> Tensor | TokenEmbeddings:
        if kind == "dense":
            return torch.randn(number, DIM, generator=generator)
        lengths = torch.randint(shortest, 6, (number,), generator=generator)
        return TokenEmbeddings(torch.randn(int(lengths.sum()), DIM, generator=generator), lengths)

    return RetrievalOutputs(texts(QUERIES, 1), texts(QUERIES * GROUP, 0), relevance)


def everything(outputs: RetrievalOutputs, device: str) -> RetrievalOutputs:
    """Return the outputs on a device, with gradients wanted."""
    moved = outputs.to(device)
    for side in (moved.query, moved.document):
        (side if isinstance(side, Tensor) else side.tokens).requires_grad_()
    return moved


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", OPTIONS)
def test_infonce_decides_its_shapes_on_the_host(name, device):
    outputs = everything(outputs_of("dense"), device)
    contrast(outputs, 0.1, OPTIONS[name]).loss.backward()
    assert outputs.document.grad.device.type == device


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_nested_infonce_decides_its_shapes_on_the_host(device):
    outputs = everything(outputs_of("dense"), device)
    sizes = Sizes((4, DIM), (1.0, 1.0))
    contrast_nested(outputs, 0.1, PLAIN, sizes, normalize=True).loss.backward()
    assert outputs.document.grad.device.type == device


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", ["dense", "late interaction"])
@pytest.mark.parametrize("name", EITHER_KIND)
def test_scores_of_either_kind_decide_their_shapes_on_the_host(name, kind, device):
    outputs = everything(outputs_of(kind), device)
    EITHER_KIND[name](outputs).backward()
    document = outputs.document
    tokens = document if isinstance(document, Tensor) else document.tokens
    assert tokens.grad.device.type == device


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_xtr_decides_its_shapes_on_the_host(device):
    outputs = everything(outputs_of("late interaction"), device)
    xtr_scores(outputs.query, outputs.document, 3).sum().backward()
    assert outputs.query.tokens.grad.device.type == device


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_vocabulary_losses_decide_their_shapes_on_the_host(device):
    hidden = torch.ones(9, DIM, device=device, requires_grad=True)
    weight = torch.ones(20, DIM, device=device, requires_grad=True)
    labels = torch.tensor([1, 2, 3, -100, 5, 6, 7, -100, 1]).to(device)
    loss = linear_cross_entropy(hidden, weight, labels, num_labelled=7)
    (loss + vocabulary_max(hidden, torch.tensor([3, 0, 6]), weight).sum()).backward()
    assert hidden.grad.device.type == device


def test_the_device_of_these_tests_does_refuse_to_be_asked():
    labels = torch.zeros(9, dtype=torch.int64, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        linear_cross_entropy(
            torch.ones(9, 2, device="meta"), torch.ones(3, 2, device="meta"), labels
        )
