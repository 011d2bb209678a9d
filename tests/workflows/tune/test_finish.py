"""Which of the best is written: by the seeds that all have, and never without being clear of the recipe."""

from embedtrain.workflows.tune.finish import choose, contenders
from embedtrain.workflows.tune.study import Trial

RECIPE = Trial(2, {}, "done", 0.1, 1.0)
OTHERS = [
    Trial(number, {"trainer.seed": number}, "done", number / 10, 1.0) for number in (3, 4, 5, 6)
]


def test_the_recipe_is_among_those_that_are_done_again_however_it_fared():
    assert contenders([RECIPE, *OTHERS]) == [*OTHERS[:0:-1], RECIPE]
    assert contenders([*OTHERS[:2], RECIPE]) == [OTHERS[1], OTHERS[0], RECIPE]
    assert contenders(OTHERS) == OTHERS[:0:-1]
    killed = Trial(0, {}, "failed", None, 1.0)
    assert contenders([killed, RECIPE]) == [RECIPE]


def test_a_seed_that_not_all_have_decides_nothing():
    best = [OTHERS[0], RECIPE]
    scores = {3: [[0.5, 0.6], [0.1, 0.2]], 2: [[0.4, 0.5]]}
    assert choose(best, scores) == (OTHERS[0], OTHERS[0])
    scores[2].append([0.4, 0.5])
    assert choose(best, scores) == (RECIPE, RECIPE)


def test_the_recipe_stays_unless_another_is_surely_better():
    best = [OTHERS[0], RECIPE]
    assert choose(best, {3: [[0.9, 0.4, 0.5]], 2: [[0.5, 0.5, 0.5]]}) == (RECIPE, OTHERS[0])
    assert choose(best, {3: [[0.9, 0.8, 0.9]], 2: [[0.5, 0.5, 0.5]]}) == (OTHERS[0], OTHERS[0])
    assert choose([], {}) == (None, None)
