import pytest
import torch
from objective_toys import number, outputs_of_scores, random_outputs

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.soft_infonce import SoftInfoNCE


def test_it_is_infonce_and_the_divergence():
    outputs = random_outputs()
    for weight in (0.0, 0.7):
        loss = SoftInfoNCE(temperature=0.2, weight=weight)(outputs).loss
        hard = InfoNCE(temperature=0.2)(outputs).loss
        soft = KLDistillation(temperature=0.2)(outputs).loss
        assert torch.isclose(loss, hard + weight * soft)


def test_a_teacher_without_doubt_gives_the_cross_entropy_of_its_choice():
    outputs = outputs_of_scores([[0.1, 0.4, 0.3]], [[0.0, 3.0, 1.0]])
    result = SoftInfoNCE(temperature=1.0, teacher_temperature=1e-3, negatives="own")(outputs)
    logits = torch.tensor([0.1, 0.4, 0.3], dtype=torch.float64)
    assert number(result.metrics["divergence"]) == pytest.approx(number(-logits.log_softmax(0)[1]))
