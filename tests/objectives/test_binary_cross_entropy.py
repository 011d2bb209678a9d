import pytest
from objective_toys import number, outputs_of_pairs, outputs_of_scores

from embedtrain.errors import UserError
from embedtrain.objectives.binary_cross_entropy import BinaryCrossEntropy

SCORES = [2.0, 0.5, 1.0, -1.0]
TEACHER = [3.0, 1.0, 2.0, -2.0]


def test_labels_outside_of_probabilities_are_refused():
    with pytest.raises(UserError, match=r"outside of \[0, 1\]"):
        BinaryCrossEntropy(labels="scores")(outputs_of_pairs(SCORES, TEACHER))


def test_a_score_is_turned_into_log_odds():
    cosines = outputs_of_scores([[0.6, 0.4]], [[0.0, 0.0]])
    result = BinaryCrossEntropy(scale=20, bias=-10)(cosines)
    pairs = BinaryCrossEntropy().for_pairs()(outputs_of_pairs([2.0, -2.0], None))
    assert number(result.loss) == pytest.approx(number(pairs.loss))
    assert number(result.metrics["accuracy"]) == 1


def test_each_query_weighs_the_same():
    objective = BinaryCrossEntropy().for_pairs()
    one, other = ([2.0, 1.0], [0.5, 3.0, -1.0, 2.0, 1.0])
    both = number(objective(outputs_of_pairs(one, None, other)).loss)
    apart = [number(objective(outputs_of_pairs(each, None)).loss) for each in (one, other)]
    assert both == pytest.approx(sum(apart) / 2)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, True),
        ({"positive_weight": 7.0}, False),
        ({"scale": 5.0}, False),
        ({"bias": 1.0}, False),
    ],
)
def test_only_unchanged_log_odds_are_probabilities_of_readers(changed, says):
    objective = BinaryCrossEntropy(**changed).for_pairs()
    assert objective.says_probability == says
    assert not BinaryCrossEntropy().says_probability, "of cosines"
