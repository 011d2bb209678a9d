"""Fusion of lists, by numbers worked out by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import Fusion, fuse
from embedtrain.retrieval.ranking import by_owner

D1, D2, D3, D4, D5 = range(5)
FIRST = [(D1, 10), (D2, 8), (D3, 2)]
SECOND = [(D3, 0.9), (D4, 0.5)]


def listed(*queries):
    """Lists of (row, score), one for each query, padded."""
    result = SearchResult.empty(len(queries), max(map(len, queries)))
    for row, own in enumerate(queries):
        for place, (document, score) in enumerate(own):
            result.indices[row, place], result.scores[row, place] = document, score
    return result


def fused(*lists, num_results=10, members=None, **settings):
    """Fuse lists of one query; return document to score, best first."""
    found = fuse([listed(one) for one in lists], Fusion(**settings), num_results, members)
    assert (np.diff(found.scores[0]) < 0).all(), "equal scores would be ordered by document id"
    used = found.indices[0] >= 0
    return dict(zip(found.indices[0][used].tolist(), found.scores[0][used].tolist(), strict=True))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("rrf", {D3: 1 / 63 + 1 / 61, D1: 1 / 61, D2: 1 / 62, D4: 1 / 62}),
        ("sum", {D1: 1.0, D3: 1.0, D2: 0.75, D4: 0.0}),
        ("max", {D3: 1.2, D1: 1.0, D2: 0.8, D4: 5 / 9}),
        ("zscore", {D1: -0.0194, D3: -0.3728, D2: -0.6078, D4: -2.3728}),
        ("dbsf", {D3: 0.93103, D1: 0.63344, D2: 0.55338, D4: 0.38215}),
    ],
)
def test_each_rule_gives_the_numbers_worked_out_by_hand(rule, expected):
    found = fused(FIRST, SECOND, rule=rule)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-4)


def test_weights_multiply_what_a_list_says():
    found = fused(FIRST, SECOND, rule="rrf", weights=(2, 1))
    assert list(found) == [D3, D1, D2, D4]
    assert found == pytest.approx(
        {D3: 0.048139, D1: 0.032787, D2: 0.032258, D4: 0.016129}, abs=1e-6
    )


def test_raw_scores_are_added_and_what_a_list_lacks_gets_its_lowest():
    found = fused([(D1, -1.0), (D2, -3.0)], [(D2, 7.0), (D3, 2.0)], rule="raw", weights=(1, 0.5))
    assert found == pytest.approx({D1: 0.0, D2: 0.5, D3: -2.0})
    assert list(found) == [D2, D1, D3]


def test_a_zipper_takes_turns_and_every_document_once():
    found = fused([(D1, 9), (D2, 8), (D3, 7)], [(D2, 3), (D4, 2)], rule="zipper")
    assert list(found) == [D1, D2, D4, D3]


def test_equal_scores_are_ordered_by_best_rank_and_then_by_row():
    # By ranks (1, 3), (3, 1) and (2, 2); rrf is convex, so the second ranks sum to less.
    first, second = [(D3, 9), (D2, 8), (D1, 7)], [(D1, 9), (D2, 8), (D3, 7)]
    assert list(fused(first, second, rule="rrf")) == [D1, D3, D2]
    # By sums 1 + 0, 0.5 + 0.5 and 0 + 1 all are equal: best rank first.
    assert list(fused(first, second, rule="sum")) == [D1, D3, D2]


@pytest.mark.parametrize("rule", ["sum", "rrf", "max", "zscore", "dbsf", "raw"])
def test_the_weights_1_and_0_leave_the_first_list_as_it_is(rule):
    # With ties, an outlier far below the mean, and another list that would turn all of it round.
    first = [(D5, 9.0), (D2, 9.0), (D1, 8.9), (D3, 0.0)]
    second = [(D3, 5.0), (D1, 4.0), (D4, 1.0)]
    assert list(fused(first, second, rule=rule, weights=(1, 0))) == [D5, D2, D1, D3, D4]
    assert list(fused(second, first, rule=rule, weights=(0, 1)))[:4] == [D5, D2, D1, D3]


@pytest.mark.parametrize(
    ("rule", "value"), [("sum", 1.0), ("max", 1.0), ("zscore", 0.0), ("dbsf", 0.5)]
)
def test_a_list_of_equal_scores_divides_by_nothing(rule, value):
    for constant in ([(D1, 3.0), (D2, 3.0)], [(D1, 3.0)], [(D1, 0.0), (D2, 0.0)]):
        found = fused(constant, [], rule=rule)
        assert found == pytest.approx(dict.fromkeys([one for one, _ in constant], value))


def test_a_query_without_results_and_lists_of_other_lengths_are_no_trouble():
    one = listed([(D1, 2.0), (D2, 1.0)], [])
    other = listed([(D2, 5.0)], [])
    for rule in ("sum", "rrf", "max", "zscore", "dbsf", "zipper"):
        found = fuse([one, other], Fusion(rule=rule), 5)
        assert set(found.indices[0].tolist()) == {D1, D2}
        assert found.indices[1].tolist() == [-1, -1]
        assert np.isneginf(found.scores[1]).all()


def test_few_results_are_the_first_of_many():
    generator = np.random.default_rng(0)
    lists = []
    for _ in range(3):
        rows = [generator.permutation(40)[:25] for _ in range(20)]
        scores = generator.integers(0, 6, size=(20, 25)).astype(np.float32)  # many ties
        lists.append(SearchResult(np.array(rows), -np.sort(-scores, axis=1)))
    for fusion in (Fusion(), Fusion(rule="rrf", weights=(1, 0, 2)), Fusion(rule="zipper")):
        whole = fuse(lists, fusion, 100)
        for few in (1, 7, 30):
            part = fuse(lists, fusion, few)
            assert (part.indices == whole.indices[:, :few]).all()
            assert (part.scores == whole.scores[:, :few]).all()


def test_a_document_counts_for_each_of_its_passages():
    # Documents 0 and 1 own the passages (0, 1) and (2, 3, 4).
    found = fused(
        [(3, 0.9), (0, 0.5)], [(1, 7.0), (0, 6.0)], rule="rrf", members=[None, [[0, 1], [2, 3, 4]]]
    )
    expected = {3: 2 / 61, 2: 1 / 61, 4: 1 / 61, 0: 2 / 62, 1: 1 / 62}
    assert found == pytest.approx(expected)
    assert list(found) == [3, 0, 2, 4, 1]


def test_a_document_stands_where_its_best_unit_stood():
    found = by_owner(listed([(4, 9.0), (3, 8.0), (0, 7.0), (2, 6.0)]), np.array([0, 0, 1, 2, 2]), 3)
    assert found.indices.tolist() == [[2, 0, 1]]
    assert found.scores.tolist() == [[9.0, 7.0, 6.0]]
    assert by_owner(listed([(0, 1.0)]), np.array([0]), 2).indices.tolist() == [[0, -1]]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match=r"not as many as the 2 systems.*got \(1.0,\)"):
        fused(FIRST, SECOND, weights=(1,))
    with pytest.raises(UserError, match=r"--fuse max needs scores of 0 or more; got -1.0. Use sum"):
        fused([(D1, 0.5), (D2, -1.0)], SECOND, rule="max")
    for settings in ({"weights": (0, 0)}, {"rule": "raw"}, {"rule": "zipper", "weights": (1, 1)}):
        with pytest.raises(ValidationError):
            Fusion(**settings)
    with pytest.raises(ValidationError):
        Fusion(weights=(-1, 2))
    with pytest.raises(UserError, match="lists of the same queries"):
        fuse([listed(FIRST), listed(FIRST, SECOND)], Fusion(), 3)


# ranx compiles for half a minute (from uint64 to int64, of which numba warns once); the worked numbers guard the same.
@pytest.mark.prove
@pytest.mark.filterwarnings("ignore:.*unsafe cast from uint64 to int64")
@pytest.mark.parametrize(("rule", "norm"), [("rrf", None), ("sum", "min-max"), ("sum", "max")])
def test_fused_scores_are_those_of_ranx(rule, norm):
    import ranx

    generator = np.random.default_rng(1)
    lists, runs = [], []
    for _ in range(2):
        rows = np.array([generator.permutation(30)[:12] for _ in range(6)])
        scores = -np.sort(-generator.random((6, 12)), axis=1).astype(np.float32)
        lists.append(SearchResult(rows, scores))
        runs.append(
            ranx.Run(
                {
                    f"q{query}": {f"d{row}": float(score) for row, score in zip(*one, strict=True)}
                    for query, one in enumerate(zip(rows.tolist(), scores, strict=True))
                }
            )
        )
    theirs = ranx.fuse(runs, norm=norm, method="rrf" if rule == "rrf" else "sum")
    ours = fuse(lists, Fusion(rule="max" if norm == "max" else rule), 100)
    for query, (rows, scores) in enumerate(zip(ours.indices, ours.scores, strict=True)):
        own = {
            f"d{row}": score for row, score in zip(rows.tolist(), scores, strict=True) if row >= 0
        }
        assert own == pytest.approx(dict(theirs.run[f"q{query}"]), abs=1e-5)
