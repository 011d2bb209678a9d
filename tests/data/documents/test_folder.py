import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from document_toys import write_pdf

from embedtrain.data.documents.folder import read_documents
from embedtrain.data.draw import generator
from embedtrain.errors import UserError

TEXT = "Water boils at one hundred degrees where the air presses as it does at the sea."


def test_files_of_every_kind_are_read_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "README.md").write_text(f"# Two\n\n{TEXT}")
    (tmp_path / "a.txt").write_text(f"One\n\n{TEXT}")
    (tmp_path / "LICENSE").write_text(TEXT)
    (tmp_path / "c.html").write_text(f"<title>Three | Site</title><p>{TEXT}")
    (tmp_path / "d.csv").write_text(f'title,text\nFour,"{TEXT}"\n')
    (tmp_path / "e.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"_id": 5, "text": TEXT}).encode())
    )
    pa.parquet.write_table(pa.table({"content": [TEXT], "id": ["six"]}), tmp_path / "f.parquet")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.md").write_text(TEXT)
    documents, report = read_documents(tmp_path)
    assert [one.id for one in documents] == [
        "LICENSE", "a.txt", "b/README.md", "c.html", "d.csv:1", "5", "six",
    ]  # fmt: skip
    assert [one.title for one in documents] == ["", "One", "Two", "Three", "Four", "", ""]
    assert all(TEXT in one.text for one in documents)
    assert report.skipped == {".png": 1}
    assert report.files[".md"] == 1


def test_two_files_of_one_name_stay_two_documents(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"{folder} {TEXT}")
    documents, _ = read_documents(tmp_path)
    assert [(one.id, one.text[0]) for one in documents] == [
        ("a/README.md", "a"),
        ("b/README.md", "b"),
    ]


def test_a_beir_folder_is_its_corpus_alone(beir):
    documents, _ = read_documents(beir)
    lines = (beir / "corpus.jsonl").read_text().splitlines()
    assert [one.id for one in documents] == [json.loads(line)["_id"] for line in lines]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside.txt").write_text(TEXT)
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "own.txt").write_text(TEXT)
    (inside / "other.txt").symlink_to(tmp_path / "outside.txt")
    assert [one.id for one in read_documents(inside)[0]] == ["own.txt"]


def test_a_wrong_encoding_names_the_byte_and_the_cure(tmp_path):
    (tmp_path / "a.txt").write_bytes("Wasser fließt".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 at byte 11; .* Save it as UTF-8\.$"):
        read_documents(tmp_path)
    with pytest.raises(UserError, match=r"is not UTF-8 at byte 11; .* encoding=latin-1"):
        read_documents(tmp_path, "utf-8")
    assert read_documents(tmp_path, "latin-1")[0][0].text == "Wasser fließt"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no document with text"),
        ({"a.txt": b" \n"}, "holds no document with text"),
        ({"a.png": b"x", "b.docx": b"x", "c.docx": b"x"}, "holds no file that can be read; got '2 .docx, 1 .png'"),
        ({"a.jsonl": b'{"_id": 1, "text": "x"}\n{"_id": 1, "text": "y"}'}, "gives two documents one id"),
        ({"a.jsonl": b'{"question": "x"}'}, "has no column text or content"),
        ({"a.jsonl": b'{"text": 3}'}, "must be a text"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_corpus_is_refused_in_one_line(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_documents(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_corpus_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="does not exist"):
        read_documents(Path("nowhere"))


def test_pages_without_text_and_damaged_pdf_files_are_counted(tmp_path, capsys):
    write_pdf(tmp_path / "a.pdf", [[TEXT], []], title="Steam")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 and no more")
    documents, report = read_documents(tmp_path)
    assert [(one.id, one.title) for one in documents] == [("a.pdf", "Steam")]
    assert (report.pdf_pages, report.pdf_pages_without_text) == (2, 1)
    assert report.skipped == {"unreadable": 1}
    said = capsys.readouterr().err
    assert "1 of 2 PDF pages hold no text" in said
    assert "b.pdf cannot be read" in said


def test_a_folder_of_scans_says_so(tmp_path):
    write_pdf(tmp_path / "scan.pdf", [[], []])
    with pytest.raises(UserError, match="only pictures: 2 PDF pages"):
        read_documents(tmp_path)


def test_lines_that_many_pages_share_are_taken_out(tmp_path):
    for number in range(6):
        body = f"<p>Text {number} of its own</p><div>All rights reserved</div>"
        (tmp_path / f"{number}.html").write_text(body)
    documents, report = read_documents(tmp_path)
    assert [one.text for one in documents] == [f"Text {number} of its own" for number in range(6)]
    assert report.boilerplate_lines == 1


def test_what_was_made_of_the_corpus_is_no_part_of_it(tmp_path):
    (tmp_path / "own.md").write_text(TEXT)
    before = read_documents(tmp_path)
    for name in ("corpus.jsonl", "synth.yaml", "requests/part-00000.jsonl", "qrels/dev.tsv"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": TEXT}) + "\n")
    assert read_documents(tmp_path) == before
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "synth.yaml").write_text("a recipe")
    (tmp_path / "recipes" / "other.md").write_text(TEXT)
    assert len(read_documents(tmp_path)[0]) == 2


@pytest.mark.parametrize("encoding", ["bogus", "hex"])
def test_an_encoding_that_nobody_knows_is_a_line(tmp_path, encoding):
    (tmp_path / "a.md").write_text(TEXT)
    with pytest.raises(UserError, match=f"encoding is not known; got '{encoding}'"):
        read_documents(tmp_path, encoding)


def test_a_name_that_is_no_utf_8_becomes_one(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text(TEXT)
    ((document,), _) = read_documents(tmp_path)
    assert document.id == "caf\\xe9.md"
    assert generator(document.id)


def test_packed_tables_are_read_whatever_their_capitals(tmp_path):
    content = gzip.compress(json.dumps({"text": TEXT}).encode())
    (tmp_path / "A.JSONL.GZ").write_bytes(content)
    ((document,), _) = read_documents(tmp_path)
    assert document.text == TEXT


def test_a_table_of_something_else_is_left_out_of_a_folder_and_named_alone(tmp_path):
    (tmp_path / "a.md").write_text(TEXT)
    (tmp_path / "prices.csv").write_text("name,price\npump,3\n")
    documents, report = read_documents(tmp_path)
    assert ([one.id for one in documents], report.skipped) == (["a.md"], {".csv without a text": 1})
    with pytest.raises(UserError, match="has no column text or"):
        read_documents(tmp_path / "prices.csv")
    (tmp_path / "torn.jsonl").write_text(json.dumps({"text": TEXT}) + '\n{"other": 1}\n')
    with pytest.raises(UserError, match=r"torn\.jsonl:2 has no column"):
        read_documents(tmp_path)


def test_an_id_that_judgments_could_not_hold_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"_id": "a\tb", "text": TEXT}) + "\n")
    with pytest.raises(UserError, match="an id with control characters"):
        read_documents(path)
