from random import Random

from document_toys import paragraph
from synthesis_toys import chunk

from embedtrain.synthesis.choice import choose, in_parts
from embedtrain.synthesis.settings import SynthesisConfig


def chunks_of(name, number, seed=0):
    random = Random(seed)
    return [chunk(paragraph(random), f"{name}#{n}") for n in range(number)]


def test_what_says_nothing_is_left_out():
    text = paragraph(Random(0))
    found = choose(
        [
            chunk("short", "a"),
            chunk("1 2 3 4 5 " * 20, "b"),
            chunk(text, "c"),
            chunk(text.upper(), "d"),
        ],
        SynthesisConfig(),
    )
    assert [one.id for one in found.chunks] == ["c"]
    assert found.left_out == {"short": 1, "few_letters": 1, "repeated": 1, "caps": 0}


def test_chunks_of_a_long_document_are_spread_over_it():
    found = choose(chunks_of("a", 100), SynthesisConfig(per_document=8, per_chunk=2))
    assert [one.id for one in found.chunks] == ["a#0", "a#25", "a#50", "a#75"]


def test_a_limit_draws_documents_and_not_their_chunks():
    chunks = [one for n in range(30) for one in chunks_of(f"d{n}", 4, seed=n)]
    found = choose(chunks, SynthesisConfig(limit=40))
    names = [one.document for one in found.chunks]
    assert all(names.count(name) == 4 for name in names)
    assert len(set(names)) == 5


def test_one_giant_file_is_taken_in_parts():
    parts, number = in_parts(chunks_of("book", 100), 1)
    assert number == 7
    assert [parts[n].unit for n in (0, 15, 16, 99)] == ["book@1", "book@1", "book@2", "book@7"]
    assert {one.document for one in parts} == {"book"}
    assert in_parts(chunks_of("a", 3), 1)[1] == 0
    assert in_parts(chunks_of("a", 100), 20)[1] == 0
