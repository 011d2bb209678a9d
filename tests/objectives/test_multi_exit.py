import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from objective_toys import GROUP, embed, number, outputs_of_pairs, random_outputs, relevance_of
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.objectives.cosent import CoSENT
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.labelled_positives import LabelledPositives
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.types import RetrievalOutputs

LAYERS = (1, 3, 4)


def three_exits() -> tuple[RetrievalOutputs, list[RetrievalOutputs]]:
    """Return outputs with vectors of three layers side by side, and those of each alone."""
    relevance = relevance_of(5)
    parts = [
        RetrievalOutputs(embed(5, "dense", seed), embed(5 * GROUP, "dense", seed + 10), relevance)
        for seed in range(3)
    ]
    query, document = (
        torch.cat([getattr(part, side) for part in parts], 1) for side in ("query", "document")
    )
    return RetrievalOutputs(query, document, relevance, exits=LAYERS), parts


def test_without_alignment_the_loss_is_the_weighted_sum_over_layers() -> None:
    together, parts = three_exits()
    losses = [number(InfoNCE()(part).loss) for part in parts]
    found = MultiExit(inner=InfoNCE(), alignment=0.0)(together)
    assert number(found.loss) == pytest.approx(losses[2] + (losses[0] + losses[1]) / 2)


def test_the_last_layer_may_have_an_objective_of_its_own() -> None:
    together, parts = three_exits()
    relevance = replace(
        together.relevance, teacher_scores=torch.tensor([1.0, 0.0, 0.3, 0.5]).repeat(5)
    )
    relevance.teacher_scores[GROUP] = 0.5  # the second query's pair is no positive one
    together = replace(together, relevance=relevance)
    positive = LabelledPositives(inner=InfoNCE())
    found = MultiExit(inner=positive, last=CoSENT(), alignment=0.0, exit_weight=0.5)(together)
    last = CoSENT()(replace(parts[2], relevance=relevance)).loss
    middle = 0.0
    for part in parts[:2]:
        columns, ids = relevance.positives[:, 0], relevance.document_ids
        answers = torch.cat([ids[columns][:, None], relevance.known_positives], 1)
        answered = (ids[None, :, None] == answers[:, None]).any(2)
        answered[torch.arange(5), columns] = False
        scores = (part.query @ part.document.T / 0.05).masked_fill(answered, -torch.inf)
        kept = [row for row in range(5) if row != 1]
        each = scores.logsumexp(1) - scores[torch.arange(5), columns]
        middle += 0.5 * number(each[kept].sum() / 5) / 2
    assert number(found.loss) == pytest.approx(number(last) + middle, rel=1e-4)


@pytest.mark.parametrize(
    ("layer_weights", "first", "second"),
    [("depth", 1 / 4, 3 / 4), ("inverse", 1, 1 / 3), ("inverse_log", 1, 1 / (1 + math.log(3)))],
)
def test_layers_are_weighted_by_their_depth(layer_weights, first, second) -> None:
    together, parts = three_exits()
    losses = [number(InfoNCE()(part).loss) for part in parts]
    settings = {"alignment": 0.0, "layer_weights": layer_weights, "average": False}
    found = MultiExit(inner=InfoNCE(), **settings)(together)
    expected = losses[2] + first * losses[0] + second * losses[1]
    assert number(found.loss) == pytest.approx(expected)


def test_the_divergence_is_that_of_softmax_over_coordinates() -> None:
    together, parts = three_exits()
    base = MultiExit(inner=InfoNCE(), alignment=0.0)(together).loss
    found = MultiExit(inner=InfoNCE(), alignment=2.0, alignment_temperature=0.3)(together).loss

    def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        p, q = (teacher / 0.3).softmax(1), (student / 0.3).softmax(1)
        return (p * (p / q).log()).sum(1).mean()

    expected = sum(
        0.3
        * (divergence(part.query, parts[2].query) + divergence(part.document, parts[2].document))
        for part in parts[:2]
    )
    torch.testing.assert_close(found - base, expected)


def test_of_pairs_the_divergence_is_that_of_a_querys_own_documents() -> None:
    early, late = [1.0, 0.0, 0.5, 0.0], [2.0, 0.5, 1.0, -1.0]
    first, last = (outputs_of_pairs(scores, None) for scores in (early, late))
    together = replace(
        last, exits=(2, 6), exit_scores=torch.tensor([early, late], dtype=torch.float64).T
    )
    p, q = (torch.tensor(scores, dtype=torch.float64).softmax(0) for scores in (late, early))
    divergence = number((p * (p / q).log()).sum())
    inner = InfoNCE().for_pairs()
    losses = [number(inner(part).loss) for part in (first, last)]
    objective = MultiExit(inner=InfoNCE(), alignment=2.0, layer_weights="depth").for_pairs()
    assert objective.uses_pairs
    expected = losses[1] + losses[0] / 3 + 2 * divergence
    assert number(objective(together).loss) == pytest.approx(expected)


def test_the_divergence_gives_the_last_layer_no_gradient() -> None:
    together, _ = three_exits()
    query = together.query.detach().requires_grad_()
    outputs = replace(together, query=query)
    aligned = (
        MultiExit(inner=InfoNCE())(outputs).loss
        - MultiExit(inner=InfoNCE(), alignment=0.0)(outputs).loss
    )
    (gradient,) = torch.autograd.grad(aligned, query)
    assert gradient[:, 12:].abs().max() < 1e-15
    assert gradient[:, :12].abs().max() > 1e-4


def test_equal_layers_have_no_divergence() -> None:
    _, parts = three_exits()
    same = replace(
        parts[0],
        query=torch.cat([parts[0].query] * 2, 1),
        document=torch.cat([parts[0].document] * 2, 1),
        exits=(1, 2),
    )
    assert number(MultiExit(inner=InfoNCE())(same).metrics["divergence_layer_1"]) == pytest.approx(
        0
    )


def test_2d_matryoshka_trains_every_size_of_every_layer() -> None:
    together, parts = three_exits()
    objective = MultiExit(inner=Matryoshka(inner=InfoNCE(), dims=(2,)), alignment=0.0)

    def at_two_sizes(part: RetrievalOutputs) -> float:
        short = replace(
            part,
            query=F.normalize(part.query[:, :2], dim=1),
            document=F.normalize(part.document[:, :2], dim=1),
        )
        return number(InfoNCE()(part).loss) + number(InfoNCE()(short).loss)

    first, second, last = map(at_two_sizes, parts)
    assert number(objective(together).loss) == pytest.approx(last + (first + second) / 2)


def test_a_sampled_layer_follows_from_the_batch_and_not_from_its_order() -> None:
    together, _ = three_exits()
    objective = MultiExit(inner=InfoNCE(), num_sampled=1)
    order = torch.randperm(len(together.document), generator=torch.Generator().manual_seed(1))
    places = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
    relevance = together.relevance
    shuffled = replace(
        together,
        document=together.document[order],
        relevance=replace(
            relevance,
            document_ids=relevance.document_ids[order],
            owners=relevance.owners[order],
            positives=places[relevance.positives],
            teacher_scores=None,
        ),
    )
    torch.testing.assert_close(objective(shuffled).loss, objective(together).loss)
    drawn = set()
    for shift in range(20):
        ids = relevance.document_ids + shift
        moved = replace(together, relevance=replace(relevance, document_ids=ids))
        metrics = objective(moved).metrics
        drawn |= {name for name in metrics if name.startswith("loss_layer")}
        assert sum(name.startswith("loss_layer") for name in metrics) == 1
    assert drawn == {"loss_layer_1", "loss_layer_3"}


def test_outputs_of_one_layer_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.exits"):
        MultiExit(inner=InfoNCE())(random_outputs())


def test_matryoshka_around_exits_is_refused() -> None:
    with pytest.raises(ValidationError, match="around matryoshka"):
        Matryoshka(inner=MultiExit(inner=InfoNCE()), dims=(2,))
