from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from objective_toys import random_outputs
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.ops.row_blocks import candidate_masks
from embedtrain.ops.similarity import all_scores
from embedtrain.types import RetrievalOutputs, TokenEmbeddings

KINDS = ("dense", "late_interaction")


def shortened(outputs: RetrievalOutputs, dim: int) -> RetrievalOutputs:
    def cut(side: torch.Tensor | TokenEmbeddings) -> torch.Tensor | TokenEmbeddings:
        if isinstance(side, TokenEmbeddings):
            return replace(side, tokens=F.normalize(side.tokens[:, :dim], dim=1))
        return F.normalize(side[:, :dim], dim=1)

    return replace(outputs, query=cut(outputs.query), document=cut(outputs.document))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", [InfoNCE(), KLDistillation()], ids=["info_nce", "kl"])
def test_the_loss_is_the_weighted_sum_over_normalised_prefixes(kind, inner) -> None:
    outputs = random_outputs(kind)
    found = Matryoshka(inner=inner, dims=(6, 3, 2), weights=(1.0, 0.5, 0.25))(outputs).loss
    expected = sum(
        weight * inner(shortened(outputs, dim)).loss
        for dim, weight in ((6, 1.0), (3, 0.5), (2, 0.25))
    )
    torch.testing.assert_close(found, expected)


def test_the_full_size_alone_is_the_inner_objective() -> None:
    outputs = random_outputs("dense")
    torch.testing.assert_close(
        Matryoshka(inner=InfoNCE(), dims=(6,))(outputs).loss, InfoNCE()(outputs).loss
    )


def test_prefixes_of_a_dot_product_model_are_not_normalised() -> None:
    outputs = replace(random_outputs("dense"), similarity="dot")
    cut = replace(outputs, query=outputs.query[:, :2], document=outputs.document[:, :2])
    torch.testing.assert_close(
        Matryoshka(inner=InfoNCE(), dims=(2,), full_size=False)(outputs).loss, InfoNCE()(cut).loss
    )


def test_the_full_size_is_trained_where_the_sizes_lack_it() -> None:
    outputs = random_outputs("dense")
    torch.testing.assert_close(
        Matryoshka(inner=InfoNCE(), dims=(2,), weights=(0.5,))(outputs).loss,
        Matryoshka(inner=InfoNCE(), dims=(6, 2), weights=(1.0, 0.5))(outputs).loss,
    )


def test_the_last_coordinates_learn_from_the_sizes_that_hold_them_only() -> None:
    outputs = random_outputs("dense")
    loss = Matryoshka(inner=InfoNCE(), dims=(3, 2), full_size=False)(outputs).loss
    (gradient,) = torch.autograd.grad(loss, outputs.query)
    assert not gradient[:, 3:].any()
    assert gradient[:, :3].any()


def test_sampled_sizes_follow_from_the_batch_and_keep_the_full_one() -> None:
    outputs = random_outputs("dense")
    objective = Matryoshka(inner=InfoNCE(), dims=(6, 4, 3, 2), num_sampled=1)
    drawn = set()
    for shift in range(20):
        ids = outputs.relevance.document_ids + shift
        moved = replace(outputs, relevance=replace(outputs.relevance, document_ids=ids))
        sizes = {name for name in objective(moved).metrics if name.startswith("loss_")}
        assert len(sizes) == 2
        assert "loss_6" in sizes
        assert sizes == {name for name in objective(moved).metrics if name.startswith("loss_")}
        drawn |= sizes
    assert drawn == {"loss_6", "loss_4", "loss_3", "loss_2"}


def test_heads_are_taken_apart_as_they_are() -> None:
    outputs = random_outputs("late_interaction")
    second = replace(
        outputs,
        query=replace(outputs.query, tokens=outputs.query.tokens[:, 4:]),
        document=replace(outputs.document, tokens=outputs.document.tokens[:, 4:]),
    )
    result = Matryoshka(inner=InfoNCE(), dims=(4, 2), mode="heads")(outputs)
    torch.testing.assert_close(result.metrics["loss_2"], InfoNCE()(second).loss.detach())


@pytest.mark.parametrize(("mode", "dims"), [("prefix", (7,)), ("heads", (4, 1))])
def test_sizes_the_model_lacks_are_refused(mode, dims) -> None:
    with pytest.raises(UserError, match=r"objective\.dims"):
        Matryoshka(inner=InfoNCE(), dims=dims, mode=mode)(random_outputs("dense"))


@pytest.mark.parametrize(
    "settings",
    [
        {"dims": (4, 4)},
        {"dims": (4, 2), "weights": (1.0,)},
        {"dims": (4, 2), "mode": "heads", "alignment": 1.0},
        {"dims": (4, 2), "full_size": False, "alignment": 1.0},
    ],
)
def test_sizes_that_contradict_each_other_are_refused(settings) -> None:
    with pytest.raises(ValidationError):
        Matryoshka(inner=InfoNCE(), **settings)


def test_one_pass_serves_dense_info_nce_and_equals_one_call_per_size() -> None:
    outputs = random_outputs("dense")
    objective = Matryoshka(inner=InfoNCE(), dims=(6, 3, 2), weights=(1.0, 0.5, 0.25))
    sizes = objective._sizes(outputs, 6)
    found, expected = (
        way(outputs, sizes) for way in (objective._in_one_pass, objective._one_by_one)
    )
    torch.testing.assert_close(found[0], expected[0])
    for side in (outputs.query, outputs.document):
        gradients = [
            torch.autograd.grad(way[0], side, retain_graph=True)[0] for way in (found, expected)
        ]
        torch.testing.assert_close(*gradients)
    for dim, one in found[1].items():
        assert one.metrics.keys() == expected[1][dim].metrics.keys()
        for name, value in one.metrics.items():
            torch.testing.assert_close(value, expected[1][dim].metrics[name])


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (KLDistillation(), "dense"),
        (InfoNCE(), "late_interaction"),
        (InfoNCE(backend="reference"), "dense"),
        (InfoNCE(hardness=1.0), "dense"),
    ],
)
def test_everything_else_runs_once_per_size(inner, kind) -> None:
    outputs = random_outputs(kind)
    objective = Matryoshka(inner=inner, dims=(6, 2))
    assert objective._in_one_pass(outputs, objective._sizes(outputs, 6)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_adds_the_divergence_from_the_full_size(kind) -> None:
    outputs = random_outputs(kind)
    settings = {"inner": InfoNCE(), "dims": (3, 2), "weights": (1.0, 0.25)}
    plain = Matryoshka(**settings)(outputs)
    aligned = Matryoshka(**settings, alignment=0.5, alignment_temperature=0.1)(outputs)

    candidates = torch.stack(candidate_masks(outputs, torch.arange(len(outputs.query)))).any(0)

    def ranking(query: int, dim: int) -> torch.Tensor:
        cut = shortened(outputs, dim) if dim < 6 else outputs
        scores = all_scores(cut.query, cut.document)[query, candidates[query]]
        return (scores / 0.1).softmax(0)

    divergence = sum(
        weight * (full * (full / ranking(query, dim)).log()).sum() / len(outputs.query)
        for query in range(len(outputs.query))
        for full in [ranking(query, 6)]
        for dim, weight in ((3, 1.0), (2, 0.25))
    )
    torch.testing.assert_close(aligned.metrics["divergence"], divergence.detach())
    torch.testing.assert_close(aligned.loss, plain.loss + 0.5 * divergence)


def test_alignment_teaches_the_prefix_and_not_the_full_size() -> None:
    outputs = random_outputs("dense")
    settings = {"inner": InfoNCE(), "dims": (3,)}
    plain, aligned = (
        torch.autograd.grad(objective(outputs).loss, outputs.query)[0]
        for objective in (Matryoshka(**settings), Matryoshka(**settings, alignment=1.0))
    )
    torch.testing.assert_close(aligned[:, 3:], plain[:, 3:])
    assert (aligned[:, :3] - plain[:, :3]).abs().max() > 1e-3


def test_alignment_leaves_out_what_may_be_an_answer_and_needs_a_shorter_size() -> None:
    outputs = random_outputs("dense")
    relevance = outputs.relevance
    known = relevance.document_ids[relevance.positives[1, :1]].expand(len(outputs.query), 1)
    spared = replace(outputs, relevance=replace(relevance, known_positives=known))
    objective = Matryoshka(inner=InfoNCE(), dims=(3,), alignment=1.0)
    assert objective(spared).metrics["divergence"] != objective(outputs).metrics["divergence"]
    alone = Matryoshka(inner=InfoNCE(), dims=(6,), alignment=1.0)(outputs)
    torch.testing.assert_close(alone.loss, InfoNCE()(outputs).loss)


def test_a_learned_temperature_divides_the_scores_of_every_size() -> None:
    outputs = replace(random_outputs("dense"), temperature=torch.tensor(0.3, dtype=torch.float64))
    found = Matryoshka(inner=InfoNCE(temperature=0.05), dims=(6, 3))(outputs).loss
    expected = sum(InfoNCE()(shortened(outputs, dim)).loss for dim in (6, 3))
    torch.testing.assert_close(found, expected)
