"""Exact ids, by hand: what each rule keeps of a few documents with known scores."""

from dataclasses import replace

import numpy as np
import pytest
from mining_toys import fixed, make_task
from pydantic import ValidationError

from embedtrain.contract.spans import mark
from embedtrain.mining.settings import CrossEncoderCheck

ROWS = np.array([0])
SCORES = [[1.0, 0.97, 0.96, 0.94, 0.9, 0.69, 0.5, 0.2, -0.1, -0.3]]
"""Of documents 0 to 9; document 0 is the positive."""


def ids(mined) -> list[str]:
    return [negative["id"] for negative in mined["neg"]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"kind": "none"}, ["d1", "d2", "d3"]),
        ({"kind": "percentage", "ratio": 0.95}, ["d3", "d4", "d5"]),
        ({"kind": "margin", "margin": 0.07}, ["d4", "d5", "d6"]),
        ({"kind": "absolute", "maximum": 0.7}, ["d5", "d6", "d7"]),
        ({"kind": "adaptive", "margin": 0.05, "maximum": 0.92}, ["d4", "d5", "d6"]),
        ({"kind": "adaptive", "margin": 0.4, "maximum": 0.92}, ["d6", "d7", "d8"]),
    ],
)
def test_each_rule_keeps_what_scores_below_its_threshold(build, rule, expected):
    miner = build(*make_task(SCORES, [[0]]), rule=rule, num_negatives=3)
    mined = miner.mine(ROWS)[0]
    assert ids(mined) == expected
    assert mined["pos"] == [{"id": "d0", "score": 1.0}]


def test_ranks_scores_and_reasons_are_written_down(build):
    mined = build(*make_task(SCORES, [[0]]), num_negatives=2).mine(ROWS)[0]
    assert [negative["rank"] for negative in mined["neg"]] == [4, 5]
    assert [negative["score"] for negative in mined["neg"]] == [0.94, 0.9]
    assert mined["dropped"] == {"positive": 1, "score": 2}
    assert [suspect["id"] for suspect in mined["suspects"]] == ["d1", "d2"]


def test_a_second_positive_is_never_a_negative_and_the_lowest_decides(build):
    miner = build(*make_task(SCORES, [[0, 4]]), num_negatives=3)
    mined = miner.mine(ROWS)[0]
    assert ids(mined) == ["d5", "d6", "d7"], "0.95 of 0.9, the lower positive"
    assert mined["dropped"] == {"positive": 2, "score": 3}


def test_a_negative_positive_score_makes_the_percentage_stricter_not_looser(build):
    scores = [[-0.20, -0.205, -0.215, -0.5]]
    miner = build(*make_task(scores, [[0]]), rule={"kind": "percentage"}, num_negatives=4)
    assert ids(miner.mine(ROWS)[0]) == ["d2", "d3"], "the threshold is -0.21, not -0.19"


def test_a_score_at_the_threshold_is_kept_out(build):
    scores = [[1.0, 0.95, 0.94995, 0.9498]]
    assert ids(build(*make_task(scores, [[0]])).mine(ROWS)[0]) == ["d3"]


def test_copies_of_a_positive_and_of_the_query_are_kept_out(build):
    texts = ["the answer", "x", "THE  Answer", "Query  0", "z", "z", *"abcd"]
    task, encoded = make_task([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]], [[0]], texts)
    mined = build(task, encoded, num_negatives=4).mine(ROWS)[0]
    assert ids(mined) == ["d1", "d4", "d6", "d7"], "of two equal texts the better ranked stays"
    assert mined["dropped"] == {"positive": 1, "duplicate": 1, "equals_query": 1}


def test_every_chunk_that_says_the_query_is_kept_out_whatever_document_it_is_of(build):
    chunks = [mark(f"Query 0. {name} tells of screws.", [0, 8]) for name in ("One", "Two")]
    texts = ["the answer", *chunks, "x", "y"]
    task, encoded = make_task([[0.9, 0.8, 0.7, 0.6, 0.5]], [[0]], texts)
    task = replace(task, queries=["query 0."])
    mined = build(task, encoded, num_negatives=2).mine(ROWS)[0]
    assert ids(mined) == ["d3", "d4"]
    assert mined["dropped"]["equals_query"] == 2


def test_guarded_documents_and_first_ranks_can_be_left_out(build):
    task, encoded = make_task(SCORES, [[9]])
    settings = {"rule": {"kind": "none"}, "num_negatives": 3, "skip_ranks": 2}
    mined = build(task, encoded, guarded=np.array([3]), **settings).mine(ROWS)[0]
    assert ids(mined) == ["d2", "d4", "d5"]
    assert mined["dropped"] == {"positive": 1, "guarded": 1, "rank": 2}


def test_equal_scores_are_ordered_by_document(build):
    task, encoded = make_task([[0.9] + [0.5] * 29], [[0]])
    miner = build(task, encoded, num_negatives=4, depth=6)
    assert ids(miner.mine(ROWS)[0]) == ["d1", "d2", "d3", "d4"]


def test_sources_share_the_negatives_by_quota_and_no_document_comes_twice(build):
    task, encoded = make_task([[1.0] + [0.1] * 19], [[0]])
    sources = [fixed("dense", range(1, 10), 2), fixed("bm25", [2, 12, 13, 14, 15], 1)]
    mined = build(task, encoded, sources, num_negatives=6).mine(ROWS)[0]
    assert ids(mined) == ["d1", "d2", "d3", "d4", "d12", "d5"]
    assert [negative["source"] for negative in mined["neg"]].count("bm25") == 1
    quotas = build(task, encoded, [fixed("a", [1, 2, 3, 4]), fixed("b", [5, 6, 7, 8])])
    assert ids(quotas.mine(ROWS)[0])[:4] == ["d1", "d5", "d2", "d6"]


def test_a_guide_keeps_out_what_it_puts_above_the_positive(build):
    task, encoded = make_task(SCORES, [[0]])
    _, guide = make_task([[0.5, 0, 0, 0.6, 0.4, 0.2, 0, 0, 0, 0]], [[0]])
    kept = {"guide_scores": guide.score, "num_negatives": 2}
    plain = build(task, encoded, guide={"model": "m"}, **kept).mine(ROWS)[0]
    assert ids(plain) == ["d4", "d5"]
    assert plain["dropped"]["guide"] == 1
    strict = build(task, encoded, guide={"model": "m", "margin": 0.09}, **kept).mine(ROWS)[0]
    assert ids(strict) == ["d4", "d5"]
    stricter = build(task, encoded, guide={"model": "m", "margin": 0.11}, **kept).mine(ROWS)[0]
    assert ids(stricter) == ["d5", "d6"]


def test_a_cross_encoder_decides_near_the_threshold_and_is_asked_nothing_else(build):
    asked = []

    def probabilities(pairs):
        asked.extend(document for _, document in pairs)
        return np.array([0.05 if document == "document 2" else 0.5 for _, document in pairs])

    check = {"model": "m", "near": 0.03, "maximum": 0.1}
    scores = [[0.97, *SCORES[0][1:]]]  # the positive is near its threshold as well
    miner = build(
        *make_task(scores, [[0]]),
        rule={"kind": "absolute", "maximum": 0.95},
        probabilities=probabilities,
        cross_encoder=check,
        num_negatives=3,
    )
    mined = miner.mine(ROWS)[0]
    assert asked == ["document 1", "document 2", "document 3"]
    assert ids(mined) == ["d2", "d4", "d5"], "document 2 is saved, document 3 condemned"
    assert [negative["ce"] for negative in mined["neg"]] == [0.05, None, None]
    assert mined["dropped"] == {"positive": 1, "cross_encoder": 2}


def test_a_cross_encoder_makes_positives_above_one_threshold_and_negatives_below_another(build):
    found = {0: 0.05, 1: 0.95, 2: 0.5, 3: 0.99, 4: 0.1, 5: 0.01, 6: 0.9}

    def probabilities(pairs):
        return np.array([found[int(document.split()[1])] for _, document in pairs])

    scores = [[0.9, 0.89, 0.8, 0.2, 0.7, 0.6, 0.1]]
    settings = {"probabilities": probabilities, "num_negatives": 9}
    check = {"model": "m", "positive": 0.9, "maximum": 0.1}
    mined = build(*make_task(scores, [[0]]), cross_encoder=check, **settings).mine(ROWS)[0]
    assert ids(mined) == ["d4", "d5"], "document 2 is neither"
    assert [one["id"] for one in mined["new_pos"]] == ["d3", "d1", "d6"], "the most probable first"
    assert mined["new_pos"][0] == {"id": "d3", "score": 0.2, "ce": 0.99}
    assert mined["doubted"] == ["d0"], "what people judged stays"
    assert [one["id"] for one in mined["pos"]] == ["d0"]
    fewer = check | {"most_positives": 1}
    mined = build(*make_task(scores, [[0]]), cross_encoder=fewer, **settings).mine(ROWS)[0]
    assert [one["id"] for one in mined["new_pos"]] == ["d3"]
    assert "d1" not in ids(mined)


def test_a_text_becomes_a_positive_once(build):
    texts = ["document 0", "same", "same", "document 3"]
    task = make_task([[0.9, 0.5, 0.4, 0.3]], [[0]], texts)
    check = {"model": "m", "positive": 0.9}
    says = lambda pairs: np.array([0.95 * (document == "same") for _, document in pairs])  # noqa: E731
    mined = build(*task, cross_encoder=check, probabilities=says).mine(ROWS)[0]
    assert [one["id"] for one in mined["new_pos"]] == ["d1"]


def test_thresholds_that_overlap_are_refused():
    with pytest.raises(ValidationError, match="positive must be above maximum"):
        CrossEncoderCheck(model="m", maximum=0.5, positive=0.5)


@pytest.mark.parametrize("kind", ["uniform", "simans"])
def test_sampling_depends_on_seed_epoch_and_query_only(build, kind):
    generator = np.random.default_rng(0)
    scores = generator.uniform(0, 0.9, size=(6, 40))
    task, encoded = make_task(scores, [[row] for row in range(6)])

    def mined(**settings):
        return build(task, encoded, sampling={"kind": kind}, rule={"kind": "none"}, **settings)

    together = [ids(query) for query in mined().mine(np.arange(6))]
    alone = [ids(mined().mine(np.array([row]))[0]) for row in range(6)]
    assert together == alone
    assert together != [ids(query) for query in mined(seed=1).mine(np.arange(6))]
    assert together != [ids(query) for query in mined(epoch=1).mine(np.arange(6))]
    assert all(len(set(query)) == 7 for query in together)


def test_simans_prefers_scores_near_the_positive_and_a_pool_bounds_the_draw(build):
    task, encoded = make_task([[0.5, *np.linspace(0.499, 0.1, 60)]], [[0]])
    settings = {"rule": {"kind": "none"}, "num_negatives": 10}
    near = build(task, encoded, sampling={"kind": "simans", "a": 200}, **settings).mine(ROWS)[0]
    far = build(task, encoded, sampling={"kind": "uniform"}, **settings).mine(ROWS)[0]
    mean = lambda mined: np.mean([negative["score"] for negative in mined["neg"]])  # noqa: E731
    assert mean(near) > mean(far) + 0.05
    pool = build(task, encoded, sampling={"kind": "uniform", "pool": 12}, **settings).mine(ROWS)[0]
    assert max(negative["rank"] for negative in pool["neg"]) <= 13


def test_the_shift_of_simans_is_added_to_the_positives_score(build):
    task, encoded = make_task([[0.5, *np.linspace(0.9, 0.1, 81)]], [[0]])
    settings = {"rule": {"kind": "none"}, "num_negatives": 5, "depth": 90}
    for shift in (-0.3, 0.0, 0.3):
        sampling = {"kind": "simans", "a": 1e5, "b": shift}
        mined = build(task, encoded, sampling=sampling, **settings).mine(ROWS)[0]
        for negative in mined["neg"]:
            assert negative["score"] == pytest.approx(0.5 + shift, abs=0.05)


def test_too_few_survivors_are_kept_repeated_or_filled_at_random(build):
    texts = ["the answer", "The answer", *(f"t{row}" for row in range(38))]
    task, encoded = make_task([[1.0, 1.0, 0.99, 0.5, 0.4, *([0.1] * 35)]], [[0]], texts)
    settings = {"depth": 5, "num_negatives": 5}
    assert ids(build(task, encoded, **settings).mine(ROWS)[0]) == ["d3", "d4"]
    repeated = build(task, encoded, shortfall="repeat", **settings).mine(ROWS)[0]
    assert ids(repeated) == ["d3", "d4", "d3", "d4", "d3"]
    filled = build(task, encoded, shortfall="random_fill", **settings).mine(ROWS)[0]["neg"]
    assert [negative["source"] for negative in filled] == ["dense"] * 2 + ["random"] * 3
    names = {negative["id"] for negative in filled}
    assert len(names) == 5
    assert not names & {"d0", "d1", "d2"}, "random documents pass the same filters"
    assert all(negative["score"] == 0.1 for negative in filled[2:]), "they are scored too"


@pytest.mark.parametrize(
    ("first_text", "clusters"), [("other", [0, 1, 0, 3]), ("THE  Answer", [0, 1, 2, 3])]
)
def test_what_a_positive_repeats_nearly_or_wholly_is_no_negative(build, first_text, clusters):
    texts = [first_text, "x", "the answer", "y"]
    miner = build(*make_task([[0.5, 0.1, 0.9, 0.2]], [[2]], texts), num_negatives=3)
    filters = replace(miner.filters, clusters=np.array(clusters))
    mined = replace(miner, filters=filters).mine(ROWS)[0]
    assert ids(mined) == ["d3", "d1"]
    assert mined["dropped"] == {"positive": 1, "duplicate": 1}


def test_first_ranks_that_are_left_out_leave_the_random_documents_alone(build):
    task, encoded = make_task([[1.0] + [0.1] * 99], [[0]])
    settings = {"depth": 5, "skip_ranks": 60, "num_negatives": 5, "shortfall": "random_fill"}
    mined = build(task, encoded, **settings).mine(ROWS)[0]
    assert len(mined["neg"]) == 5


def test_a_random_document_repeats_no_text_that_was_chosen(build):
    task, encoded = make_task([[1.0, 0.5] + [0.1] * 38], [[0]], ["the answer"] + ["same"] * 39)
    settings = {"depth": 2, "num_negatives": 3, "shortfall": "random_fill"}
    assert ids(build(task, encoded, **settings).mine(ROWS)[0]) == ["d1"]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_random_documents_are_held_to_the_scores_of_their_own_query(build, order):
    """Query 1 has ten documents just below its positive and none is a negative."""
    close = [0.1] * 2 + [0.29] * 10 + [0.1] * 28
    scores = [[1.0, 0.0] + [0.2] * 38, [0.0, 0.3, *close[2:]]]
    settings = {"depth": 5, "num_negatives": 4, "shortfall": "random_fill"}
    mined = build(*make_task(scores, [[0], [1]]), **settings).mine(np.array(order))
    short = mined[order.index(1)]["neg"]
    assert [negative["source"] for negative in short] == ["random"] * 4
    assert all(negative["score"] in (0.0, 0.1) for negative in short)
