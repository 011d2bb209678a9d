"""What codes lose of dense vectors, against numbers worked by hand; chunks and ranks change nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from objective_toys import relevance_of
from rank_toys import GROUP, average_over_ranks, batch, loss_share, on_ranks, own_rows

from embedtrain.code_types import SparseCode
from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.reconstruction import Reconstruction
from embedtrain.ops.sparse_code import activations, code_of
from embedtrain.training.ranks.gather import gather_code, gather_outputs
from embedtrain.types import Relevance, RetrievalOutputs

ALONE = Reconstruction(inner=InfoNCE(temperature=1.0), inner_weight=0.0)
FOUR = torch.cat([torch.eye(2), -torch.eye(2)]).double()


def outputs_of(
    query: torch.Tensor,
    document: torch.Tensor,
    dictionary: torch.Tensor,
    relevance: Relevance,
    *,
    kept: int = 1,
    biases: tuple[torch.Tensor, torch.Tensor] | None = None,
    idle: torch.Tensor | None = None,
) -> RetrievalOutputs:
    """Codes of these vectors, as a model gives them."""
    entries, width = dictionary.shape
    before, behind = biases or (query.new_zeros(width), query.new_zeros(entries))
    steps = torch.zeros(entries, dtype=torch.int64) if idle is None else idle
    code = SparseCode(query, document, dictionary, before, behind, steps, kept)
    codes = (
        code_of(activations(rows, dictionary, before, behind), kept) for rows in (query, document)
    )
    return RetrievalOutputs(*codes, relevance, similarity="dot", code=code)


def worked(vectors: list[list[float]], idle: list[int] | None = None, **settings: object):
    """Return what is lost of vectors that are queries and documents alike."""
    rows = torch.tensor(vectors, dtype=torch.float64)
    steps = None if idle is None else torch.tensor(idle)
    made = outputs_of(rows, rows, FOUR, relevance_of(len(rows), 1), idle=steps)
    return ALONE.model_copy(update=settings)(made)


def test_one_entry_of_four_leaves_the_smaller_number():
    found = worked([[3.0, -1.0]])
    assert found.metrics["reconstruction"].item() == 0.5  # ((3 - 3)^2 + (-1 - 0)^2) / 2
    assert found.metrics["reconstruction_wider"].item() == 0.0  # four entries rebuild it
    assert found.metrics["reconstruction_dead"].item() == 0.0
    assert found.loss.item() == 0.5


def test_four_times_as_many_entries_are_a_second_code():
    rows = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    made = outputs_of(rows, rows, torch.eye(5, dtype=torch.float64), relevance_of(1, 1))
    found = ALONE(made)
    lost, wider = (16.0 + 9.0 + 4.0 + 1.0) / 5, 1.0 / 5
    assert found.metrics["reconstruction"].item() == lost
    assert found.metrics["reconstruction_wider"].item() == wider
    assert found.loss.item() == lost + wider / 8


def test_dead_entries_rebuild_what_is_left():
    # What one entry leaves is (0, -1) and (0, 1); their mean is 0, so its error is 1/2.
    rows = [[3.0, -1.0], [3.0, 1.0]]
    dead = worked(rows, idle=[0, 0, 0, 31])
    assert dead.metrics["dead_entries"].item() == 0.25
    assert (
        dead.metrics["reconstruction_dead"].item() == (0.0 + 1.0) / 4 / 0.5
    )  # the first is rebuilt
    assert dead.loss.item() == pytest.approx(0.5 + 0.1 * 0.5)
    assert worked(rows, idle=[0, 0, 0, 30]).metrics["reconstruction_dead"].item() == 0.0
    assert worked(rows, idle=[0, 31, 0, 31], dead_kept=1).metrics["reconstruction_dead"].item() == 0
    same = worked([[3.0, -1.0]] * 2, idle=[0, 31, 0, 0])  # nothing to divide by
    assert same.metrics["reconstruction_dead"].item() == 0.5


def test_the_inner_objective_is_added_with_its_weight():
    rows = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = outputs_of(rows, rows, FOUR, relevance_of(3, 1), kept=2)
    inner = ALONE.inner(made).loss
    for weight in (1.0, 3.0):
        found = ALONE.model_copy(update={"inner_weight": weight})(made).loss
        torch.testing.assert_close(found, ALONE(made).loss + weight * inner)


def test_vectors_that_are_no_codes_are_refused():
    rows = torch.eye(2).double()
    made = outputs_of(rows, rows, FOUR, relevance_of(2, 1))
    with pytest.raises(UserError, match=r"Set model\.head: code"):
        ALONE(replace(made, code=None))


class Coder(torch.nn.Module):
    """Stands for a model with a code: its gradients are what ranks must agree on."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(*shape, generator=generator).double())

        self.dense, self.dictionary = random(5, 6), random(9, 5)
        self.before, self.behind = random(5), random(9)

    def forward(self, query: torch.Tensor, document: torch.Tensor, relevance: Relevance):
        vectors = (F.normalize(rows @ self.dense.T, dim=1) for rows in (query, document))
        idle = torch.tensor([0, 40, 0, 50, 0, 0, 31, 0, 3])
        biases = self.before, self.behind
        return outputs_of(*vectors, self.dictionary, relevance, kept=2, biases=biases, idle=idle)


RANKED = Reconstruction(inner=InfoNCE(temperature=0.7), dead_kept=2)


def gradients(coder: Coder, loss: torch.Tensor) -> list[torch.Tensor]:
    loss.backward()
    return [loss.detach(), *(value.grad for value in coder.parameters())]


def check_ranks(sizes: list[int]) -> None:
    coder, (first, last) = Coder(), own_rows(sizes)
    own = coder(*batch(sum(sizes), first, last))
    gathered = replace(gather_outputs(own), code=gather_code(own.code))
    assert len(gathered.code.document) == sum(sizes) * GROUP
    loss = RANKED(gathered).loss * loss_share(last - first)
    found = average_over_ranks(*gradients(coder, loss))
    whole = Coder()
    expected = gradients(whole, RANKED(whole(*batch(sum(sizes)))).loss)
    for one, many in zip(expected, found, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[4, 4], [2, 5], [1, 4, 2, 3]], ids=str)
def test_codes_lose_over_ranks_what_they_lose_in_one_process(sizes):
    on_ranks(len(sizes), check_ranks, sizes)
