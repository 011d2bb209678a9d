import gzip
import hashlib

import pytest

from embedtrain.data.readers.text_lines import hash_files, read_lines, read_objects
from embedtrain.errors import UserError


def test_lines_come_with_their_number_and_byte_offset(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("é\n\nb".encode())
    assert list(read_lines(path)) == [(1, 0, "é\n"), (2, 3, "\n"), (3, 4, "b")]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_objects(path)) == [(f"{path}:1", {"a": 1})]


def test_a_gzip_file_reads_as_its_content(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
    assert [row for _, row in read_objects(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"{}\n" * 9, mtime=0)[:-6]], ids=["other", "cut"]
)
def test_a_broken_gzip_file_is_refused(tmp_path, content):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jsonl\.gz cannot be read; got .*(gzipped|ended)"):
        list(read_objects(path))


def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "caf\xe9"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not UTF-8; got b'\\xe9\"}\\n'"):
        list(read_objects(path))


@pytest.mark.parametrize("line", ["{", "nonsense", '{"a": 1} {"b": 2}', "[" * 100_000])
def test_a_line_of_invalid_json_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n", "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not valid JSON"):
        list(read_objects(path))


def test_a_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[1, 2]\n", "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:1 must be a JSON object; got \[1, 2\]"):
        list(read_objects(path))


def test_a_missing_an_empty_and_an_unreadable_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(read_lines(tmp_path / "absent"))
    with pytest.raises(UserError, match="does not exist"):
        hash_files([tmp_path / "absent"])
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="is empty"):
        list(read_lines(tmp_path / "empty"))
    with pytest.raises(UserError, match="is a folder"):
        list(read_lines(tmp_path))
    with pytest.raises(UserError, match="is a folder"):
        hash_files([tmp_path])


def test_the_hash_follows_the_content_and_order_but_not_the_names(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    c.write_bytes(b"one")
    assert hash_files([a, b]) == hash_files([c, b]) != hash_files([b, a])
    once = hashlib.sha256(hashlib.sha256(b"one").digest()).hexdigest()
    assert hash_files([a]) == once
