import math
from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, number, outputs_of_scores, random_outputs

from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.ops.similarity import all_scores


def test_a_value_worked_by_hand():
    outputs = outputs_of_scores([[1.0, 0.0]], [[math.log(3), 0.0]])
    loss = KLDistillation(temperature=1.0)(outputs).loss
    student = math.e / (1 + math.e)
    expected = 0.75 * math.log(0.75 / student) + 0.25 * math.log(0.25 / (1 - student))
    assert number(loss) == pytest.approx(expected, abs=1e-12)


def test_a_student_that_agrees_up_to_a_shift_per_query_has_no_loss_and_no_gradient():
    scores = [[0.3, -0.2, 0.5], [0.9, 0.1, 0.0]]
    teacher = [[2 * s + 7 for s in scores[0]], [2 * s - 3 for s in scores[1]]]
    outputs = outputs_of_scores(scores, teacher)
    loss = KLDistillation(temperature=0.5)(outputs).loss
    loss.backward()
    assert number(loss) == pytest.approx(0, abs=1e-12)
    assert number(outputs.document.grad.abs().max()) < 1e-12


def test_one_candidate_teaches_nothing():
    outputs = outputs_of_scores([[0.3], [0.1]], [[5.0], [1.0]])
    loss = KLDistillation()(outputs).loss
    loss.backward()
    assert number(loss) == 0
    assert number(outputs.document.grad.abs().max()) == 0


@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_in_the_batch_it_is_the_cross_entropy_of_a_teacher_that_knows_nothing_of_others(kind):
    outputs = random_outputs(kind)
    relevance = outputs.relevance
    relevance.known_positives[3, 0] = relevance.document_ids[3 * GROUP + 2]  # an own negative
    second = torch.tensor([-1, GROUP + 3, -1, -1, 4 * GROUP + 1])
    positives = torch.stack([relevance.positives[:, 0], second], 1)
    outputs = replace(outputs, relevance=replace(relevance, positives=positives))
    loss = KLDistillation(temperature=0.3, candidates="batch")(outputs).loss
    scores = all_scores(outputs.query, outputs.document) / 0.3
    expected = []
    for row in range(5):
        own = list(range(row * GROUP, (row + 1) * GROUP))
        answers = {int(relevance.document_ids[c]) for c in positives[row].tolist() if c >= 0}
        answers |= set(relevance.known_positives[row].tolist())
        kept = [
            column
            for column in range(5 * GROUP)
            if column in positives[row] or int(relevance.document_ids[column]) not in answers
        ]
        own = [column for column in own if column in kept]
        target = (relevance.teacher_scores[own].double()).log_softmax(0)
        student = scores[row, own] - scores[row, kept].logsumexp(0)
        expected.append((target.exp() * (target - student)).sum())
    assert number(loss.detach()) == pytest.approx(number(torch.stack(expected).mean()), abs=1e-9)


def test_the_squared_temperature_multiplies():
    outputs = random_outputs()
    plain = KLDistillation(temperature=0.2)(outputs).loss
    squared = KLDistillation(temperature=0.2, squared_temperature=True)(outputs).loss
    assert number(squared) == pytest.approx(number(plain) * 0.04)


def test_rows_without_teacher_scores_are_refused():
    outputs = random_outputs()
    without = replace(outputs, relevance=replace(outputs.relevance, teacher_scores=None))
    with pytest.raises(ValueError, match="learns from a teacher's scores"):
        KLDistillation()(without)
