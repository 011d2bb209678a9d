from random import Random

import pytest
from document_toys import paragraph, sentence
from synthesis_toys import chunk

from embedtrain.data.documents.document import Document, Link
from embedtrain.data.raw_text.rules import begins_with, holds, without
from embedtrain.data.words import words_of
from embedtrain.synthesis.makers import Rules
from embedtrain.synthesis.settings import MAKERS, SynthesisConfig

ALWAYS = {"first": 1, "crop": 1, "keyphrases": 1}


def made(chunks, documents=(), **settings):
    config = SynthesisConfig.model_validate({"shares": ALWAYS} | settings)
    documents = documents or [Document(one.document, one.title, one.text) for one in chunks]
    return list(Rules.of(config, documents, chunks).write(chunks))


def test_no_positive_begins_with_its_query():
    random = Random(0)
    chunks = []
    for number in range(60):
        title = sentence(random, 5)
        text = f"{title} {paragraph(random, 5)}\n\n{paragraph(random, 3)}"
        chunks.append(chunk(text, f"d{number}", title=title, heading=sentence(random, 3)))
    chunks += [chunk("again " * 60, f"r{number}") for number in range(5)]
    found = made(chunks)
    assert {one.maker for one in found} == {"title", "heading", "first", "crop", "keyphrases"}
    assert not any(begins_with(one.positive, one.query) for one in found)
    titles = [one for one in found if one.maker == "title"]
    assert len(titles) == 60
    assert not any(one.query.lower() in one.positive.lower() for one in titles)


def test_a_title_of_two_documents_is_no_query():
    random = Random(1)
    chunks = [chunk(paragraph(random), f"d{n}", title="Notes on the release") for n in range(2)]
    assert made(chunks, makers=["title"]) == []


def test_a_short_heading_gets_the_title():
    one = chunk(paragraph(Random(2)), title="The pump", heading="Use > Care")
    other = chunk(paragraph(Random(3)), title="The pump", heading="Long hours in the cold")
    assert [found.query for found in made([one, other], makers=["heading"])] == [
        "The pump Use Care",
        "Long hours in the cold",
    ]


def test_questions_end_where_the_next_begins():
    answers = [paragraph(Random(n)) for n in range(2)]
    text = f"Q: How is it rinsed?\nA: {answers[0]}\n\n- Who pays for the pump?\n{answers[1]}\n\ncode || exit $?\n"
    found = made([chunk(text)], makers=["question"])
    assert [(one.query, one.positive.split("\n")[0]) for one in found] == [
        ("How is it rinsed?", answers[0]),
        ("Who pays for the pump?", answers[1]),
    ]


def test_the_first_sentence_leaves_the_rest():
    random = Random(4)
    parts = [sentence(random) for _ in range(4)]
    (found,) = made([chunk(" ".join(parts))], makers=["first"])
    assert found.query == parts[0].strip(".")
    assert found.positive == " ".join(parts[1:])


def test_key_phrases_are_rare_words_in_the_order_of_the_text():
    random = Random(5)
    common = sentence(random, 12)
    texts = [f"{common} zebra{n} {common} quagga{n} {common} okapi{n}" for n in range(20)]
    found = made([chunk(text, f"d{n}") for n, text in enumerate(texts)], makers=["keyphrases"])
    assert len(found) == 20
    for number, one in enumerate(found):
        assert 3 <= len(one.query.split()) <= 6
        rare = [word for word in one.query.split() if word[-1].isdigit()]
        assert rare == [f"{name}{number}" for name in ("zebra", "quagga", "okapi")]


def test_links_ask_for_the_document_that_they_lead_to():
    random = Random(6)
    target, source = (
        chunk(paragraph(random), "b.md", title="Pumps"),
        chunk(paragraph(random), "a.md"),
    )
    links = (Link("care of pumps", "b.md"), Link("here", "b.md"), Link("a lost page", "c.md"))
    documents = [
        Document("a.md", "", source.text, links=links),
        Document("b.md", "Pumps", target.text),
    ]
    found = made([source, target], documents, makers=["link"])
    assert [(one.query, one.document) for one in found] == [("care of pumps", "b.md")]


def test_another_chunk_changes_no_query_but_its_own():
    random = Random(7)
    chunks = [chunk(paragraph(random, 6), f"d{n}") for n in range(20)]
    drawn = ["first", "crop"]
    few, more = (made(chunks[:size], makers=drawn, shares={}) for size in (15, 20))
    assert few == [one for one in more if int(one.document[1:]) < 15]
    assert 0 < len({one.document for one in few if one.maker == "crop"}) < 15


def test_every_maker_is_known():
    with pytest.raises(ValueError, match="makers"):
        SynthesisConfig.model_validate({"makers": ["titel"]})
    assert len(set(MAKERS)) == len(MAKERS)


def test_a_phrase_is_taken_out_whatever_its_marks():
    assert without("The  Pump: care. It hums.", "the pump care") == "It hums."
    assert without("pumps hum", "pump") == "pumps hum"
    assert words_of(without("a b", "...")) == ("a", "b")


def test_a_query_holds_a_title_whose_words_stand_in_it_in_a_row():
    assert holds("The pump: use, care", "the Pump")
    assert not holds("the old pump", "The pump")
    assert not holds("anything", "")
