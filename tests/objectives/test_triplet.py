import pytest
import torch
from objective_toys import number, outputs_of_scores, random_outputs
from sts_toys import pairs_of

from embedtrain.errors import UserError
from embedtrain.objectives.triplet import Triplet


def test_it_is_torchs_triplet_loss_averaged_over_a_querys_negatives() -> None:
    outputs = random_outputs()
    query, document = outputs.query.detach(), outputs.document.detach()
    own = document.view(5, 4, -1)
    expected = torch.stack(
        [torch.nn.functional.triplet_margin_loss(query, own[:, 0], own[:, n]) for n in (1, 2, 3)]
    ).mean()
    # torch adds 1e-6 to differences
    torch.testing.assert_close(Triplet()(outputs).loss, expected, rtol=1e-5, atol=1e-5)


def test_a_margin_that_is_kept_costs_nothing() -> None:
    scores = outputs_of_scores([[0.9, 0.1, 0.2]], [[0.0, 0.0, 0.0]])
    result = Triplet(distance="similarity", margin=0.6)(scores)
    assert number(result.loss) == 0
    assert number(result.metrics["satisfied_ratio"]) == 1
    assert number(Triplet(distance="similarity", margin=0.8)(scores).loss) == pytest.approx(0.05)


def test_equal_vectors_have_a_finite_gradient() -> None:
    outputs = random_outputs()
    same = torch.ones(5, 6, dtype=torch.float64, requires_grad=True)
    document = same.repeat_interleave(4, 0)
    loss = Triplet()(type(outputs)(same, document, outputs.relevance)).loss
    loss.backward()
    assert same.grad.isfinite().all()


def test_rows_without_negatives_and_several_vectors_are_refused() -> None:
    with pytest.raises(UserError, match="hard negatives"):
        Triplet()(pairs_of([0.1], [0.0]))
    with pytest.raises(UserError, match="one vector per text"):
        Triplet()(random_outputs("late_interaction"))
