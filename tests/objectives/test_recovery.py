from dataclasses import replace

import pytest
import torch
from objective_toys import random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.recovery import Recovery

INNER = InfoNCE(temperature=0.3)


def test_the_loss_adds_the_price_of_what_bits_miss() -> None:
    outputs = replace(random_outputs("late_interaction"), recovery=torch.tensor(0.36).double())
    found = Recovery(inner=INNER, weight=0.5)(outputs)
    torch.testing.assert_close(found.loss, INNER(outputs).loss + 0.18)
    assert found.metrics["recovery"] == pytest.approx(0.36)


def test_a_model_that_gives_nothing_back_is_refused() -> None:
    with pytest.raises(UserError, match=r"Set model\.recovery: true"):
        Recovery(inner=INNER)(random_outputs("late_interaction"))
