import pytest

from embedtrain.contract.spans import mark
from embedtrain.data.examples import Columns, Example
from embedtrain.data.readers.rows import RowReader, choose_columns, join_title
from embedtrain.errors import UserError


def read(row, only_text=False, **columns):
    return RowReader(Columns(**columns), only_text=only_text).read(row, "f.jsonl:3")


@pytest.mark.parametrize("query", ["query", "anchor", "question"])
@pytest.mark.parametrize(
    "positive", ["positive", "positives", "pos", "document", "passage", "answer"]
)
def test_common_names_are_found(query, positive):
    assert read({query: "q", positive: "p"}) == Example("q", ("p",))


def test_numbered_negatives_keep_their_numerical_order():
    row = {"anchor": "q", "positive": "p", "negative_10": "c", "negative_2": "b", "negative_1": "a"}
    assert read(row).negatives == ("a", "b", "c")


def test_lists_of_positives_and_negatives_with_scores():
    row = {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [3, 2.5], "neg_scores": [1]}
    assert read(row) == Example("q", ("a", "b"), ("c",), (3.0, 2.5, 1.0))


def test_a_document_may_be_an_object_with_title_and_text():
    row = {
        "query": "q",
        "query_id": 7,
        "positive_passages": [{"docid": "1", "title": "T", "text": "x"}],
        "negative_passages": [{"docid": "2", "text": "y"}],
    }
    assert read(row) == Example("q", ("T x",), ("y",), query_id="7")


def test_named_columns_win_over_common_names():
    row = {
        "query": "wrong",
        "title": "q",
        "body": "p",
        "lead": "p2",
        "negative": "wrong",
        "other": "n",
    }
    named = {"query": "title", "positive": ("body", "lead"), "negatives": "other"}
    assert read(row, **named) == Example("q", ("p", "p2"), ("n",))


def test_rows_of_one_source_may_have_different_columns():
    reader = RowReader(Columns())
    assert reader.read({"query": "q", "positive": "p"}, "x").negatives == ()
    assert reader.read({"query": "q", "positive": "p", "negative": "n"}, "x").negatives == ("n",)
    assert reader.read({"query": "q", "positive": "p", "negative": None}, "x").negatives == ()


def test_a_cell_of_csv_may_be_empty_where_a_part_is_optional():
    row = {"query": "q", "positive": "p", "negative_1": "", "negative_2": "n", "scores": ""}
    assert read(row, only_text=True) == Example("q", ("p",), ("n",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"f\.jsonl:3 has no column for the query; got \['text', 'label'\]"),
        ({"query": "text"}, "has no column for the positive"),
        ({"query": "txet"}, r"has no column 'txet'; got \['text', 'label'\]"),
        ({"query": "text", "positive": "label", "negatives": "neg"}, "has no column 'neg'"),
        ({"query": "text", "positive": "label", "scores": ("label", "s")}, "has no column 's'"),
        ({"query": "text", "positive": "label", "id": "key"}, "has no column 'key'"),
    ],
)
def test_a_missing_column_is_named_with_the_columns_found(columns, message):
    with pytest.raises(UserError, match=message):
        choose_columns(Columns(**columns), ("text", "label"), "f.jsonl:3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": 3}, r"f\.jsonl:3 query must be a text; got 3"),
        ({"query": None}, "query must be a text"),
        ({"query": " \n"}, "query is an empty text"),
        ({"positive": ["p", ""]}, "positive is an empty text"),
        ({"positive": {"title": "no text"}}, "positive must be a text"),
        ({"positive": []}, "has a query without positives; got 'q'"),
        ({"positive": None}, "has a query without positives"),
        ({"negative": [["n"]]}, "negative must be a text"),
        ({"scores": [1.0, float("nan")]}, "scores must be finite; got nan"),
        ({"scores": [float("-inf"), 1.0]}, "scores must be finite; got -inf"),
        ({"scores": ["1", "2"]}, "scores must be a number or a list of numbers; got '1'"),
        ({"scores": [True, 0]}, "scores must be a number"),
        ({"scores": [1.0]}, "has 1 scores for 1 positives and 1 negatives"),
        ({"teacher_gram": [0.5, 0.1]}, "teacher_gram must be the 1 cosines between 2 documents"),
        ({"teacher_gram": [1.5]}, "teacher_gram must be the 1 cosines between 2 documents"),
        ({"teacher_gram": [float("nan")]}, "teacher_gram must be finite; got nan"),
        ({"teacher_gram": "n-grams"}, "teacher_gram must be a number or a list of numbers"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(change, message):
    row = {"query": "q", "positive": "p", "negative": "n"} | change
    with pytest.raises(UserError, match=message):
        read(row)


def test_a_score_that_is_no_number_in_csv_is_shown_as_it_stands():
    row = {"query": "q", "positive": "p", "scores": "high"}
    with pytest.raises(UserError, match="must be a number or a list of numbers; got 'high'"):
        read(row, only_text=True)


def test_title_and_text_are_joined_by_one_space():
    assert join_title("A", "b") == "A b"
    assert join_title("", " b ") == join_title(None, "b") == "b"
    assert join_title("A", "") == "A"


def test_scores_are_brought_between_0_and_1():
    reader = RowReader(Columns(), score_range=(1.0, 5.0))
    row = {"sentence1": "a", "sentence2": "b", "score": 3.0}
    example = reader.read(row, "sts.jsonl:1")
    assert (example.query, example.positives, example.scores) == ("a", ("b",), (0.5,))
    with pytest.raises(UserError, match=r"sts.jsonl:2 score lies outside score_range; got 5.5"):
        reader.read(row | {"score": 5.5}, "sts.jsonl:2")


def test_cosines_of_a_teacher_are_read_as_they_are_whatever_the_range_of_scores():
    row = {"query": "q", "positive": "p", "negatives": ["n", "m"], "scores": [5, 3, 1]}
    reader = RowReader(Columns(), score_range=(1.0, 5.0))
    example = reader.read(row | {"teacher_gram": [0.5, -1, 0]}, "x:1")
    assert example.scores == (1.0, 0.5, 0.0)
    assert example.teacher_gram == (0.5, -1.0, 0.0)
    assert reader.read(row | {"teacher_gram": None}, "x:2").teacher_gram == ()
    assert reader.read(row, "x:3").teacher_gram == ()


def test_a_score_column_counts_beside_sentence2_only():
    row = {"query": "a", "positive": "b", "score": 3.0}
    assert RowReader(Columns()).read(row, "x:1").scores == ()


def test_classes_are_numbered_by_first_row_and_numbers_stay():
    reader = RowReader(Columns(query="text", positive="text", label="label"))
    found = [
        reader.read({"text": "a", "label": label}, "x:1").scores
        for label in ("red", "blue", "red", 7)
    ]
    assert found == [(0.0,), (1.0,), (0.0,), (7.0,)]
    with pytest.raises(UserError, match="whole number"):
        reader.read({"text": "a", "label": 0.5}, "x:1")
    with pytest.raises(UserError, match=r"columns: \{label"):
        reader.read({"text": "a"}, "x:1")


def test_a_text_may_be_an_object_with_a_span():
    value = {"text": "the red cat", "span": [[0, 3], [8, 11]]}
    example = read({"query": value, "positive": ["red", value | {"span": None}]})
    assert example.query == mark("the red cat", [[0, 3], [8, 11]])
    assert example.positives == ("red", "the red cat")
    with pytest.raises(UserError, match=r"^f.jsonl:3 query span does not ascend"):
        read({"query": value | {"span": [3, 50]}, "positive": "red"})
    with pytest.raises(UserError, match=r"^f.jsonl:3 query has a span and a title"):
        read({"query": value | {"title": "A"}, "positive": "red"})


def test_of_two_common_names_the_more_telling_is_taken_whatever_their_order():
    for row in ({"answer": "a", "positive": "p"}, {"positive": "p", "answer": "a"}):
        assert read({"query": "q", **row}).positives == ("p",)
