from dataclasses import replace

import pytest
import torch
from objective_toys import embed, number, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.self_distillation import SelfDistillation
from embedtrain.ops.groups import row_divergences
from embedtrain.ops.row_blocks import candidate_masks
from embedtrain.ops.similarity import all_scores
from embedtrain.types import RetrievalOutputs

INNER = InfoNCE(temperature=0.5)


def with_cls(share: float = 1.0) -> RetrievalOutputs:
    outputs = random_outputs("late_interaction")
    query = replace(outputs.query, cls=embed(5, "dense", 7) * share)
    document = replace(outputs.document, cls=embed(20, "dense", 8))
    return replace(outputs, query=query, document=document, cls_share=torch.tensor(share).double())


def divergence(outputs: RetrievalOutputs, **settings: object) -> torch.Tensor:
    objective = SelfDistillation(inner=INNER, **settings)
    return objective(outputs).loss - INNER(outputs).loss


def test_the_token_scores_teach_the_dense_ones_by_definition():
    outputs = with_cls()
    found = divergence(outputs, teacher="late_interaction", temperature=0.7, cls_temperature=0.1)
    tokens = all_scores(replace(outputs.query, cls=None), replace(outputs.document, cls=None))
    whole = outputs.query.cls @ outputs.document.cls.T
    positive, negative = candidate_masks(outputs, torch.arange(5))
    expected = 0.0
    for row in range(5):
        kept = positive[row] | negative[row]
        teacher = (tokens[row, kept] / 0.7).log_softmax(0)
        student = (whole[row, kept] / 0.1).log_softmax(0)
        expected += number((teacher.exp() * (teacher - student)).sum()) / 5
    assert number(found) == pytest.approx(expected)


@pytest.mark.parametrize("teacher", ["late_interaction", "dense"])
def test_the_teacher_gets_no_gradient(teacher):
    outputs = with_cls()
    divergence(outputs, teacher=teacher).backward()  # the gradients of the inner losses cancel
    of_tokens = number(outputs.document.tokens.grad.abs().max())
    of_whole = number(outputs.document.cls.grad.abs().max())
    taught, untaught = (
        (of_whole, of_tokens) if teacher == "late_interaction" else (of_tokens, of_whole)
    )
    assert taught > 1e-4
    assert untaught < 1e-12


@pytest.mark.parametrize("teacher", ["both", "late_interaction", "dense"])
def test_a_teacher_is_a_constant(teacher, monkeypatch):
    """For ``both`` no gradient could tell: what would flow through the mean of the students cancels."""
    seen = []

    def spy(student, teacher, mask):
        seen.append((student.requires_grad, teacher.requires_grad))
        return row_divergences(student, teacher, mask)

    monkeypatch.setattr("embedtrain.objectives.self_distillation.row_divergences", spy)
    divergence(with_cls(), teacher=teacher)
    assert set(seen) == {(True, False)}


def test_both_learn_from_their_mean_by_definition():
    outputs = with_cls()
    divergence(outputs, temperature=0.7, cls_temperature=0.1).backward()
    found = outputs.document.tokens.grad.clone(), outputs.document.cls.grad.clone()
    again = with_cls()
    tokens = all_scores(replace(again.query, cls=None), replace(again.document, cls=None)) / 0.7
    whole = again.query.cls @ again.document.cls.T / 0.1
    positive, negative = candidate_masks(again, torch.arange(5))
    kept = positive | negative
    for row in range(5):
        students = [scores[row, kept[row]] for scores in (tokens, whole)]
        teacher = torch.stack([student.detach() for student in students]).mean(0).softmax(0)
        loss = sum(
            (teacher * (teacher.log() - student.log_softmax(0))).sum() for student in students
        )
        (loss / 5).backward(retain_graph=True)
    torch.testing.assert_close(found, (again.document.tokens.grad, again.document.cls.grad))


def test_the_learned_share_of_the_dense_vector_does_not_change_its_view():
    found = [number(divergence(with_cls(share), teacher="dense")) for share in (1.0, 0.3)]
    assert found[0] == pytest.approx(found[1])


def test_a_model_with_one_kind_of_vectors_is_refused():
    for kind in ("dense", "late_interaction"):
        with pytest.raises(UserError, match="needs both kinds of vectors"):
            SelfDistillation(inner=INNER)(random_outputs(kind))
