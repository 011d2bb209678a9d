import numpy as np
from synthesis_toys import row

from embedtrain.synthesis.duplicates import drop_duplicates, join_same


def taken(rows):
    return [one.taken_by for one in rows]


def test_repetitions_within_a_document_and_near_copies_are_taken():
    words = " ".join(f"word{n}" for n in range(30))
    rows = [
        row("how is it rinsed", name="a"),
        row("How is it  RINSED", name="a#2"),
        row(f"{words} x", name="b"),
        row(f"{words} y", name="c"),
        row("how is it rinsed", name="d"),
    ]
    drop_duplicates(rows, 0.95, None)
    assert taken(rows) == ["", "duplicate", "", "duplicate", ""]


def test_queries_of_nearly_one_vector_are_one():
    rows = [row(f"query number {n} {n * 7}", name=f"d{n}") for n in range(3)]
    vectors = np.array([[1, 0], [0, 1], [3, 0.1]], dtype=np.float32)
    drop_duplicates(rows, 0.95, lambda queries: vectors[: len(queries)])
    assert taken(rows) == ["", "", "duplicate"]


def test_a_model_of_many_vectors_compares_words_only():
    rows = [row(f"query number {n}") for n in range(3)]
    drop_duplicates(rows, 0.95, lambda _: None)
    assert taken(rows) == ["", "", ""]


def same(*names):
    return [row("how is it rinsed", name=name) for name in names]


def test_the_same_query_of_two_documents_has_two_positives():
    rows = same("a", "b")
    join_same(rows, lambda _: "train", 3)
    assert taken(rows) == ["", "joined"]
    assert rows[0].also == [rows[1]]


def test_it_is_dropped_where_one_was_not_found_or_splits_differ_or_too_many():
    lost = same("a", "b")
    lost[1].taken_by = "round_trip"
    join_same(lost, lambda _: "train", 3)
    assert taken(lost) == ["duplicate", "round_trip"]
    parted = same("a", "b")
    join_same(parted, lambda one: one.candidate.document, 3)
    assert taken(parted) == ["duplicate", "duplicate"]
    many = same("a", "b", "c", "d")
    join_same(many, lambda _: "train", 3)
    assert taken(many) == ["duplicate"] * 4
