"""Needles, and what they share with passkeys: lengths, places, and the mean over what a model reads whole."""

import re

import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.probes.long_texts import (
    FILLER,
    TOPICS,
    TOWNS,
    fits_window,
    hide,
    make_needles,
    score_lengths,
)
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder

COLOURS = ["red", "green", "blue", "small", "large"]


def make_colours(length, size, seed):
    """Each query is a document of its own, but at 62 words where it is the next one."""
    texts = [" ".join([colour, *["tree"] * (length - 1)]) for colour in COLOURS]
    return texts, texts[1:] + texts[:1] if length == 62 else texts


def test_the_mean_is_over_the_lengths_that_the_model_reads_whole(bert, cache):
    subject = Subject(load_encoder(bert), "x", cache)  # 64 tokens, two of them around a text
    assert score_lengths(subject, ProbeWish(lengths=(20, 62, 63)), make_colours) == [
        Finding("20 words", "ndcg_at_1", 1.0),
        Finding("62 words", "ndcg_at_1", 0.0),
        Finding("63 words", "ndcg_at_1", 1.0),
        Finding("mean of lengths within 64 tokens: 2 of 3", "ndcg_at_1", 0.5),
    ]
    assert score_lengths(subject, ProbeWish(lengths=(63,)), make_colours) == [
        Finding("63 words", "ndcg_at_1", 1.0)
    ]


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_a_text_fits_up_to_the_last_token_of_the_window(kind, request):
    model = load_encoder(request.getfixturevalue(kind))
    num_special = len(model.tokenization(["tree"], "document")[0]) - 1
    room = model.contract.document_length - num_special
    assert fits_window(model, ["tree", " ".join(["tree"] * room)])
    assert not fits_window(model, [" ".join(["tree"] * (room + 1)), "tree"])


def test_a_sentence_is_hidden_anywhere_in_filler_that_begins_again():
    rng = np.random.default_rng(0)
    texts = [hide("X Y", ["a", "b", "c"], 6, rng) for _ in range(50)]
    assert {text.replace("X Y ", "").replace(" X Y", "") for text in texts} == {"a b c a"}
    assert {text.split().index("X") for text in texts} == {0, 1, 2, 3, 4}
    assert hide("X Y", ["a"], 1, rng) == "X Y"


def test_a_document_holds_the_fact_of_its_query_and_no_other():
    queries, documents = make_needles(90, 40, seed=1)
    assert len(set(queries)) == 40
    assert len(documents) == 80
    assert all(abs(len(text.split()) - 90) <= 1 for text in documents)
    known = set(" ".join(FILLER).split())
    for number, query in enumerate(queries):
        (topic,) = (
            one
            for one in TOPICS
            if re.fullmatch(re.escape(one.question).replace(r"\{\}", ".*"), query)
        )
        (town,) = (one for one in TOWNS if re.search(rf"\b{one}\b", query))
        start, end = topic.fact.format(town, "{}").split("{}")
        holders = [
            n for n, text in enumerate(documents)
            if any(f"{start}{answer}{end}" in text for answer in topic.answers)
        ]  # fmt: skip
        assert holders == [number]
        assert town not in known


def test_facts_share_their_topic_and_their_texts_differ():
    queries, documents = make_needles(90, 40, seed=1)
    assert make_needles(90, 40, seed=1) == (queries, documents)
    assert make_needles(90, 40, seed=2)[1] != documents
    assert len({text[:80] for text in documents}) > 70
    assert len(set(make_needles(20, 1152, seed=0)[0])) == 1152
    assert len({re.sub("|".join(TOWNS), "", query) for query in queries}) == len(TOPICS)


def test_towns_are_told_apart_as_words():
    assert len(set(TOWNS)) == 288
    assert not [one for one in TOWNS for other in TOWNS if one != other and one in other]


def test_more_queries_than_facts_are_the_users_mistake(bert, cache):
    wish = ProbeWish(lengths=(30,), size=1153)
    with pytest.raises(UserError, match=r"--size is more than .*; got 1153\. Use 1152 at most"):
        run_probe("needle", Subject(load_encoder(bert), "x", cache), wish)


@pytest.mark.parametrize("name", ["needle", "passkey"])
def test_both_probes_give_each_length_and_the_mean(name, bert, cache):
    subject = Subject(load_encoder(bert), "x", cache)
    found = run_probe(name, subject, ProbeWish(lengths=(1, 400), size=2))
    assert [one.setting for one in found] == [
        "1 words",
        "400 words",
        "mean of lengths within 64 tokens: 1 of 2",
    ]
    assert found[2].value == found[0].value
