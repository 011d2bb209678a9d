from itertools import pairwise
from random import Random

import pytest
from document_toys import paragraph

from embedtrain.data.documents.blocks import assemble
from embedtrain.data.documents.document import Document
from embedtrain.data.documents.markdown import read_markdown
from embedtrain.data.documents.splitter import split


def count(text):
    return len(text.split())


def markdown(text):
    return assemble(read_markdown("a.md", text))


def check(document, chunks, length):
    """No chunk is too long or elsewhere than it says, none overlaps, and no word but those of headings is lost."""
    for one in chunks:
        assert document.text[one.start : one.end] == one.text
        assert count(one.text) <= length
    assert all(a.end <= b.start for a, b in pairwise(chunks))
    headings = {word for one in document.headings for word in one.text.split()}
    kept = {word for one in chunks for word in one.text.split()}
    assert set(document.text.split()) - headings <= kept


def test_a_short_document_is_one_chunk_of_its_own_name():
    (chunk,) = split(Document("d1", "T", " some words "), 8, count)
    assert (chunk.id, chunk.text, chunk.start, chunk.end) == ("d1", "some words", 1, 11)


@pytest.mark.parametrize("length", [7, 16, 40, 100])
def test_chunks_fit_and_lose_nothing(length):
    random = Random(0)
    parts = [
        f"{'#' * random.randint(1, 3)} Head{n}\n\n{paragraph(random, random.randint(1, 9))}"
        for n in range(12)
    ]
    document = markdown("\n\n".join(parts))
    chunks = split(document, length, count)
    check(document, chunks, length)
    assert [one.id for one in chunks] == [f"a.md#{n}" for n in range(1, len(chunks) + 1)]


def test_paragraphs_are_not_cut_where_they_fit():
    random = Random(1)
    texts = [paragraph(random, 2) for _ in range(6)]
    chunks = split(Document("a", "", "\n\n".join(texts)), 40, count)
    assert [one.text for one in chunks] == ["\n\n".join(texts[n : n + 2]) for n in (0, 2, 4)]


def test_headings_are_paths_without_the_title_and_chunks_end_at_level_one():
    long = "word " * 30
    text = (
        f"# Title\n\n{long}\n\n## Install\n\n{long}\n\n### Windows\n\n{long}\n\n# Second\n\nshort"
    )
    chunks = split(markdown(text), 40, count)
    assert [one.heading for one in chunks] == ["", "Install", "Install > Windows", "Second"]
    assert not any("Windows" in one.text for one in chunks)


def test_small_sections_are_joined_with_their_headings():
    text = "# T\n\n## Options\n\n### -a\n\nshows all\n\n### -b\n\nshows some"
    (chunk,) = split(markdown(text), 100, count)
    assert chunk.heading == "Options"
    assert chunk.text == "-a\n\nshows all\n\n-b\n\nshows some"


def test_code_is_not_cut_at_its_blank_lines():
    code = "```\n" + "\n\n".join(f"line {n}" for n in range(8)) + "\n```"
    text = f"{'before ' * 20}\n\n{code}\n\n{'after ' * 20}"
    chunks = split(markdown(text), 24, count)
    assert any(one.text.startswith("line 0") and one.text.endswith("line 7") for one in chunks)


def test_a_giant_line_is_cut_in_linear_time():
    calls = []

    def counted(text):
        calls.append(len(text))
        return len(text) // 2

    document = Document("big.txt", "", "x" * 200_000 + " " + "yy " * 50_000)
    chunks = split(document, 64, counted)
    assert all(len(one.text) <= 130 for one in chunks)
    assert sum(calls) < 20 * len(document.text)


def test_no_length_cuts_nothing():
    document = markdown("# A\n\n" + "word " * 1000)
    (chunk,) = split(document, None, count)
    assert chunk.text == document.text
