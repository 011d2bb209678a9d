import numpy as np
import pytest
from task_toys import written

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import mean_scores
from embedtrain.evaluation.tasks.bitext_mining import margin_choices
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.retrieval.dense.exact import SearchResult


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


COSINES = np.array([[0.9, 0.8, 0.1], [0.7, 0.75, 0.2], [0.3, 0.6, 0.5]])


def nearest(scores: np.ndarray, number: int) -> SearchResult:
    order = np.argsort(-scores, axis=1)[:, :number]
    return SearchResult(order, np.take_along_axis(scores, order, 1).astype(np.float32))


@pytest.mark.parametrize(
    ("margin", "chosen"), [("ratio", [0, 1, 2]), ("distance", [0, 1, 2]), ("absolute", [0, 1, 1])]
)
def test_a_margin_mends_a_hub(margin, chosen):
    found = margin_choices(nearest(COSINES, 2), nearest(COSINES.T, 2).scores, margin)
    assert found.tolist() == chosen


def hub(write_jsonl, **more) -> tuple[str, dict]:
    """Three pairs whose cosines are COSINES: sentence 3 is nearer to the translation of 2 than to its own."""
    rows = [{"sentence1": f"a{n}", "sentence2": f"b{n}"} for n in range(3)]
    for name, values in more.items():
        rows[0][name] = values
    vectors = {f"a{n}": [*np.eye(3)[n], 0] for n in range(3)}
    vectors |= {f"b{n}": [*COSINES[:, n], 0] for n in range(3)}
    return str(write_jsonl(rows)), vectors


def test_xsim_counts_the_texts_that_its_margin_gets_wrong(bert, write_jsonl, monkeypatch):
    monkeypatch.setattr("embedtrain.evaluation.tasks.bitext_mining.NEIGHBOURS", 2)
    path, vectors = hub(write_jsonl)
    scores = mean_scores(open_task(path).run(written(bert, vectors)).per_query)
    assert scores["xsim_error"] == scores["xsim_error_distance"] == 0
    assert scores["xsim_error_absolute"] == pytest.approx(1 / 3)
    assert scores["accuracy"] == 2 / 3, "the nearest alone is the hub"


def test_a_copy_of_the_translation_is_no_error(bert, write_jsonl):
    rows = [{"sentence1": f"a{n}", "sentence2": ("b", "b", "c")[n]} for n in range(3)]
    vectors = {"a0": [1, 0], "a1": [1, 0], "a2": [0, 1], "b": [1, 0], "c": [0, 1]}
    scores = mean_scores(open_task(str(write_jsonl(rows))).run(written(bert, vectors)).per_query)
    assert scores["xsim_error"] == 0
    assert scores["accuracy"] == 2 / 3


def test_distractors_stand_among_the_candidates_of_xsim_plus_alone(bert, write_jsonl):
    distractors = {"number": ["b0 with 7", "b2"], "entity": ["far"]}
    path, vectors = hub(write_jsonl)
    vectors |= {"b0 with 7": [5, 0, 0, 0], "far": [0, 0, 0, 1]}
    without = open_task(path).run(written(bert, vectors)).per_query
    path, _ = hub(write_jsonl, distractors=distractors)
    found = open_task(path).run(written(bert, vectors)).per_query
    assert {name: found[name] for name in without} == without
    assert found["xsim_plus_error"]["1"] == found["xsim_plus_error_number"]["1"] == 1
    assert set(found["xsim_plus_error_entity"].values()) == {0.0}


def test_distractors_that_are_no_texts_are_refused(bert, write_jsonl):
    path, vectors = hub(write_jsonl, distractors="b0 with 7")
    with pytest.raises(UserError, match="distractors of item 1 are no list of texts"):
        open_task(path).run(written(bert, vectors))
