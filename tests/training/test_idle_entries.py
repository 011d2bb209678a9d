"""Steps that entries of a code are idle: once for a step, the same on all ranks."""

import torch
from objective_toys import relevance_of
from rank_toys import on_ranks
from sparse_toys import code_head
from torch.distributed import get_rank

from embedtrain.training.idle_entries import IdleEntries
from embedtrain.training.ranks.means import any_row
from embedtrain.types import RetrievalOutputs


def idle_entries() -> IdleEntries:
    made = IdleEntries(torch.nn.Identity())
    made.head = code_head(torch.eye(4), kept=2)
    return made


def outputs(query: list[float], document: list[float]) -> RetrievalOutputs:
    return RetrievalOutputs(torch.tensor([query]), torch.tensor([document]), relevance_of(1, 1))


FIRST = outputs([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0])
SECOND = outputs([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0])


def test_an_entry_is_idle_until_a_query_or_document_has_it():
    idle = idle_entries()
    for batch in (FIRST, FIRST, SECOND):
        idle.look(batch)
        idle.step_done()
    assert idle.head.idle_steps.tolist() == [0, 1, 0, 3]


def test_a_step_counts_once_however_often_its_batches_are_looked_at():
    idle = idle_entries()
    for batch in (FIRST, SECOND, FIRST):
        idle.look(batch)
    idle.step_done()
    idle.step_done()  # nothing was looked at
    assert idle.head.idle_steps.tolist() == [0, 0, 0, 1]


def check_ranks() -> None:
    rows = torch.zeros(2, 4)
    rows[1, get_rank()] = 0.5
    assert any_row(rows, torch.zeros(3, 4)).tolist() == [True, True, False, False]


def test_what_any_rank_has_is_idle_on_none():
    on_ranks(2, check_ranks)


def test_models_without_a_code_are_left_alone():
    idle = IdleEntries(torch.nn.Identity())
    idle.look(FIRST)
    idle.step_done()
    assert idle.head is None
