"""Pairs of texts become one sequence."""

import pytest
import torch
from tokenizers.processors import RobertaProcessing
from transformers import AutoTokenizer

from embedtrain.contract.pairs import (
    PairParts,
    join_pairs,
    parts_of_template,
    parts_of_tokenizer,
)
from embedtrain.contract.texts import join_texts
from embedtrain.errors import UserError

PREFIX, MIDDLE, SUFFIX = 101, 102, 103
LETTERS = PairParts((PREFIX,), (MIDDLE,), (SUFFIX,))


def texts(*words):
    return join_texts([torch.tensor(word).numpy() for word in words])


def all_pairs(queries, documents, parts, length, query_length):
    rows = torch.cartesian_prod(torch.arange(len(queries)), torch.arange(len(documents)))
    pairs, begins, cut = join_pairs(
        queries, documents, *rows.unbind(1), parts, length=length, query_length=query_length
    )
    return [ids.tolist() for ids in pairs.ids.split(pairs.lengths.tolist())], begins.tolist(), cut


def test_the_document_is_cut_then_the_end_of_the_query_and_never_what_stands_around():
    found, begins, cut = all_pairs(texts([1, 2, 3]), texts([11, 12, 13, 14, 15]), LETTERS, 8, 2)
    assert found == [[PREFIX, 1, 2, MIDDLE, 11, 12, 13, SUFFIX]]
    assert (begins, cut) == ([4], 1)


def test_a_document_that_comes_first_is_the_one_that_is_cut_all_the_same():
    parts = PairParts((PREFIX,), (MIDDLE,), (SUFFIX,), document_first=True)
    found, begins, cut = all_pairs(texts([1, 2, 3]), texts([11, 12, 13, 14, 15]), parts, 8, 2)
    assert found == [[PREFIX, 11, 12, 13, MIDDLE, 1, 2, SUFFIX]]
    assert (begins, cut) == ([5], 1)


@pytest.mark.parametrize("length", [7, 16, 32, 64])
def test_each_pair_begins_and_ends_as_the_template_does(length):
    generator = torch.Generator().manual_seed(length)

    def draw(count, low):
        sizes = torch.randint(1, 80, (count,), generator=generator).tolist()
        return texts(*[list(range(low, low + size)) for size in sizes])

    parts = PairParts((PREFIX,), (MIDDLE, MIDDLE), (SUFFIX, 104))
    queries, documents = draw(20, 1000), draw(25, 2000)
    found, begins, cut = all_pairs(queries, documents, parts, length, 10)
    sizes = [(q, d) for q in queries.lengths.tolist() for d in documents.lengths.tolist()]
    shortened = 0
    for ids, begin, (query, document) in zip(found, begins, sizes, strict=True):
        assert len(ids) <= length
        assert (ids[0], ids[-2:]) == (PREFIX, [SUFFIX, 104])
        kept = min(query, 10, length - parts.size - 1)
        assert ids[1 : begin - 2] == list(range(1000, 1000 + kept))
        rest = min(document, length - parts.size - kept)
        assert ids[begin:-2] == list(range(2000, 2000 + rest))
        shortened += rest < document
    assert cut == shortened


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_length_without_room_for_a_document_is_refused(length):
    with pytest.raises(
        UserError, match=r"model\.length leaves nothing for a document beside 3 tok"
    ):
        all_pairs(texts([1]), texts([2]), LETTERS, length, 4)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_joined_ids_are_those_of_the_tokenizer(family, bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    if family == "roberta":
        ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[SEP]", "[CLS]")]
        tokenizer.backend_tokenizer.post_processor = RobertaProcessing(*ends)
    parts = parts_of_tokenizer(tokenizer)
    query, document = "how do cats sleep", "cats sleep all day and dogs bark"
    whole = tokenizer(query, document, return_token_type_ids=True)
    alone = [
        texts(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (query, document)
    ]
    [ids], [begin], _ = all_pairs(*alone, parts, 64, 32)
    assert ids == whole["input_ids"]
    assert parts.has_types == (family == "bert")
    types = (
        [int(place >= begin) for place in range(len(ids))] if parts.has_types else [0] * len(ids)
    )
    assert types == whole["token_type_ids"]


def test_a_template_gives_its_own_tokens(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    parts = parts_of_template(tokenizer, "[CLS]cat {query}[SEP]{document}[SEP]dog")
    words = [
        tokenizer.convert_ids_to_tokens(ids) for ids in (parts.prefix, parts.middle, parts.suffix)
    ]
    assert words == [["[CLS]", "cat"], ["[SEP]"], ["[SEP]", "dog"]]


@pytest.mark.parametrize(
    "template", ["", "{query}", "{document}{query}", "{query}{query}{document}"]
)
def test_a_template_without_its_two_texts_is_refused(template, bert):
    with pytest.raises(UserError, match=r"must hold \{query\} and then \{document\}, each once"):
        parts_of_template(AutoTokenizer.from_pretrained(bert), template)
