from task_toys import written

from embedtrain.evaluation.measures.metrics import mean_scores
from embedtrain.evaluation.tasks.discovery import open_task


def test_f1_halves_where_a_sentence_is_found_for_another_too(bert, write_jsonl):
    rows = [{"sentence1": f"a{n}", "sentence2": f"b{n}"} for n in range(3)]
    corners = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    vectors = {f"b{n}": corner for n, corner in enumerate(corners)}
    vectors |= {"a0": corners[0], "a1": [0.9, 0.4, 0], "a2": corners[2]}
    outcome = open_task(str(write_jsonl(rows))).run(written(bert, vectors))
    assert outcome.per_query["accuracy"] == {"1": 1, "2": 0, "3": 1}
    assert outcome.per_query["f1"] == {"1": 2 / 3, "2": 0, "3": 1}
    assert mean_scores(outcome.per_query)["accuracy"] == 2 / 3


def test_f1_is_the_weighted_one_of_scikit_learn(bert, write_jsonl):
    import numpy as np
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    rows = [{"sentence1": f"a{n}", "sentence2": f"b{n}"} for n in range(40)]
    corners = np.eye(40)
    found = np.where(rng.random(40) < 0.5, np.arange(40), rng.integers(40, size=40))
    vectors = {f"b{n}": corners[n] for n in range(40)}
    vectors |= {f"a{n}": corners[found[n]] for n in range(40)}
    outcome = open_task(str(write_jsonl(rows))).run(written(bert, vectors))
    theirs = f1_score(np.arange(40), found, average="weighted", zero_division=0)
    assert abs(mean_scores(outcome.per_query)["f1"] - theirs) < 1e-12
