"""Vectors of earlier steps, and the batch norm that only one side of a step sees."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from embedtrain.models.dense.contrast_head import ContrastHead, ContrastHeadConfig
from embedtrain.training.memory_bank import ContextContrast, MemoryBank
from embedtrain.types import Relevance, RetrievalOutputs


def vectors(rows: int, seed: int = 0, width: int = 4) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_the_first_in_is_the_first_out():
    bank, every = MemoryBank(1, 4), vectors(6)
    bank.push(0, every[:3], torch.arange(3))
    bank.push(0, every[3:], torch.arange(3, 6))
    view = bank.view(0)
    assert view.ids.tolist() == [2, 3, 4, 5]
    assert torch.equal(view.vectors, every[2:])


def test_a_step_larger_than_the_bank_leaves_its_last_entries():
    bank, every = MemoryBank(1, 4), vectors(6)
    bank.push(0, every, torch.arange(6))
    assert sorted(bank.view(0).ids.tolist()) == [2, 3, 4, 5]


def test_a_language_never_sees_the_bank_of_another():
    bank = MemoryBank(2, 4)
    bank.push(0, vectors(4), torch.arange(4))
    assert bank.view(1) is None
    bank.push(1, vectors(4, 1), torch.arange(10, 14))
    assert bank.view(0).ids.tolist() == [0, 1, 2, 3]
    assert bank.view(1).ids.tolist() == [10, 11, 12, 13]


def test_a_bank_is_used_when_a_quarter_of_it_is_filled():
    bank = MemoryBank(1, 8)
    bank.push(0, vectors(1), torch.arange(1))
    assert bank.view(0) is None
    bank.push(0, vectors(1, 1), torch.arange(1, 2))
    assert len(bank.view(0).ids) == 2


def test_the_order_of_ranks_is_not_the_banks():
    one, other, every = MemoryBank(1, 8), MemoryBank(1, 8), vectors(6)
    ids, turned = torch.tensor([5, 3, 9, 1, 7, 2]), torch.tensor([3, 4, 5, 0, 1, 2])
    one.push(0, every, ids)
    other.push(0, every[turned], ids[turned])
    assert torch.equal(one.view(0).vectors, other.view(0).vectors)


def test_a_bank_that_a_checkpoint_kept_follows_the_model_to_its_device():
    bank, meta = MemoryBank(1, 4), torch.device("meta")
    bank.push(0, vectors(4), torch.arange(4))
    assert bank.view(0, meta).vectors.device == bank.view(0, meta).ids.device == meta
    bank.push(0, vectors(2).to(meta), torch.arange(2, device=meta))
    assert bank.view(0).vectors.device == bank.view(0).ids.device == meta


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.contrast_head = ContrastHead(4, ContrastHeadConfig(dim=3))


def outputs_of(rows: int = 5, seed: int = 0) -> RetrievalOutputs:
    ids = torch.arange(rows) + 10 * seed
    relevance = Relevance(
        ids, ids + 100, torch.arange(rows), torch.arange(rows)[:, None], torch.full((rows, 1), -1)
    )
    return RetrievalOutputs(vectors(rows, seed), vectors(rows, seed + 50), relevance)


def changed_mate(outputs: RetrievalOutputs) -> RetrievalOutputs:
    """Return the outputs with another last text on both sides."""
    query, document = outputs.query.clone(), outputs.document.clone()
    query[-1], document[-1] = 3.0, -2.0
    return replace(outputs, query=query, document=document)


@pytest.mark.parametrize("step", [0, 1])
def test_one_side_of_a_step_depends_on_its_batch_and_the_other_does_not(step):
    context, outputs = ContextContrast(Toy(), [8], 1), outputs_of()
    settings = {"source": 0, "step": step, "micro_batch": 0}
    before = context.compared(outputs, **settings)
    after = context.compared(changed_mate(outputs), **settings)
    same_queries = torch.equal(before.query[0], after.query[0])
    same_documents = torch.equal(before.document[0], after.document[0])
    assert (same_queries, same_documents) == ((False, True) if step == 0 else (True, False))


def test_the_head_is_torchs_own_batch_norm_between_two_layers():
    head = Toy().contrast_head
    own = nn.BatchNorm1d(4, momentum=0.1)
    layers = nn.Sequential(head.inner, own, nn.ReLU(), head.outer)
    rows = vectors(7)
    found, statistics = head(rows, of_batch=True)
    torch.testing.assert_close(found, nn.functional.normalize(layers(rows), dim=1))
    head.learn(statistics)
    torch.testing.assert_close(head.running_mean, own.running_mean)
    torch.testing.assert_close(head.running_variance, own.running_var)
    found, none = head(rows, of_batch=False)
    assert none is None
    torch.testing.assert_close(found, nn.functional.normalize(layers.eval()(rows), dim=1))


def run(context: ContextContrast, first: int, last: int) -> None:
    for step in range(first, last):
        context.compared(outputs_of(seed=step), source=0, step=step, micro_batch=0)
        context.step_done()


def test_a_step_fills_the_bank_once_with_vectors_of_the_running_statistics():
    context = ContextContrast(Toy(), [8], 1)
    outputs = outputs_of()
    for _ in range(2):  # done again with smaller chunks
        found = context.compared(outputs, source=0, step=0, micro_batch=0)
    assert found.bank is None
    context.step_done()
    view = context.bank.view(0)
    assert torch.equal(view.vectors, found.document.detach())
    assert view.ids.tolist() == outputs.relevance.document_ids.tolist()
    assert not view.vectors.requires_grad


def test_a_bank_goes_on_from_what_a_checkpoint_kept():
    whole, first, second = (ContextContrast(Toy(), [8], 1) for _ in range(3))
    run(whole, 0, 5)
    run(first, 0, 3)
    second.head.load_state_dict(first.head.state_dict())
    second.bank.load(first.bank.state(), torch.device("cpu"))
    run(second, 3, 5)
    assert torch.equal(second.bank.view(0).vectors, whole.bank.view(0).vectors)
    assert torch.equal(second.bank.view(0).ids, whole.bank.view(0).ids)
    assert torch.equal(second.head.running_mean, whole.head.running_mean)


def test_without_a_head_nothing_changes():
    outputs = outputs_of()
    context = ContextContrast(nn.Linear(1, 1), [None], 1)
    assert context.compared(outputs, source=0, step=0, micro_batch=0) is outputs
