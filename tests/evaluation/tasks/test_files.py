import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.files import find_files, item_ids, read_rows

ROWS = [{"text": "a", "label": "x"}]


def test_a_file_tells_its_name_and_split_and_finds_its_training_rows(write_jsonl, tmp_path):
    write_jsonl(ROWS, "banking.train.jsonl")
    found = find_files(str(write_jsonl(ROWS, "banking.test.jsonl")))
    assert (found.name, found.split) == ("banking", "test")
    assert found.training == tmp_path / "banking.train.jsonl"
    assert found.columns == {"text", "label"}


def test_a_name_or_a_folder_with_a_split_stands_for_a_file(write_jsonl, tmp_path):
    write_jsonl(ROWS, "sts.dev.jsonl")
    assert find_files(str(tmp_path / "sts"), "dev").path == tmp_path / "sts.dev.jsonl"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "folder" / "train.jsonl").write_text('{"text": "a"}\n')
    found = find_files(str(tmp_path / "folder"))
    assert (found.name, found.split) == ("folder", "test")
    assert found.training == tmp_path / "folder" / "train.jsonl"


def test_a_file_without_a_split_in_its_name_is_the_test_split_of_its_name(write_jsonl):
    found = find_files(str(write_jsonl(ROWS, "topics.jsonl")))
    assert (found.name, found.split, found.training) == ("topics", "test", None)


def test_a_split_that_the_named_file_is_not_is_refused(write_jsonl):
    with pytest.raises(UserError, match="is not the split dev; got 'test'"):
        find_files(str(write_jsonl(ROWS, "x.test.jsonl")), "dev")


def test_a_path_that_is_nothing_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"there is no sts\.test\.jsonl"):
        find_files(str(tmp_path / "sts"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"rows\.jsonl:2 has no column score; got \['text'\]"),
        ({"text": "a", "score": "high"}, "something other than a number in score; got 'high'"),
        ({"text": "a", "score": True}, "something other than a number in score; got True"),
        ({"text": 3, "score": 1}, "something other than a text in text; got 3"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row, message, write_jsonl):
    path = write_jsonl([{"text": "a", "score": 1}, row], "rows.jsonl")
    with pytest.raises(UserError, match=message):
        read_rows(path, {"text": str, "score": (int, float)})


def test_rows_go_by_their_id_or_their_number_and_no_id_twice(tmp_path):
    assert item_ids(tmp_path, [{"_id": "a"}, {"id": 7}, {}]) == ["a", "7", "3"]
    with pytest.raises(UserError, match="has an id twice; got 'a'"):
        item_ids(tmp_path, [{"_id": "a"}, {"_id": "a"}])
