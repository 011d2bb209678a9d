import pytest
import torch
from objective_toys import number
from scipy.stats import rankdata
from sts_toys import pairs_of

from embedtrain.objectives.rank_kl import RankKL


def test_it_is_the_divergence_from_the_softmax_of_average_ranks() -> None:
    similarity, labels = [0.9, 0.1, 0.4, -0.3], [0.5, 0.2, 0.2, 1.0]
    ranks = torch.from_numpy(rankdata([-y for y in labels], method="average") - 1)
    target = ((3 - ranks) / 3 / 0.05).softmax(0)
    found = (torch.tensor(similarity, dtype=torch.float64) / 0.05).log_softmax(0)
    expected = (target * (target.log() - found)).sum()
    loss = RankKL(per_pair=False)(pairs_of(similarity, labels)).loss
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(RankKL()(pairs_of(similarity, labels)).loss, expected / 4)


def test_similarities_spaced_as_the_ranks_cost_nothing() -> None:
    labels = [3.0, 1.0, 2.0, 2.0, 5.0]
    ideal = [0.75, 0.0, 0.375, 0.375, 1.0]
    assert number(RankKL()(pairs_of(ideal, labels)).loss) == pytest.approx(0)


def test_one_pair_costs_nothing() -> None:
    assert number(RankKL()(pairs_of([0.2], [1.0])).loss) == pytest.approx(0)
