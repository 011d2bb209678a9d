import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from embedtrain.data.pretraining.words import (
    LONGEST,
    cut_spans,
    find_sentence_starts,
    find_word_starts,
)

TEXT = "Unbelievable tokenizers split, rejoin & re-split words. Do they? They do!"


def trained(model, trainer, pre_tokenizer=None, normalizer=None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    texts = ["they do split words", "a token is joined"]
    if pre_tokenizer is None:  # merges would cross spaces
        texts = " ".join(texts).split()
    tokenizer.train_from_iterator(texts * 3, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=60,
        special_tokens=["[UNK]"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz&?!.,-"),
    )
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(),
    )


def byte_level(trim: bool = True) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    return trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=trim))


def sentence_piece() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=50, unk_token="<unk>", special_tokens=["<unk>"])
    return trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())


def without_pre_tokenizer() -> Tokenizer:
    """As converted Llama tokenizers are: a normalizer writes the spaces, and all is one word."""
    trainer = trainers.BpeTrainer(vocab_size=30)
    tokenizer = trained(
        models.BPE(unk_token="<unk>", byte_fallback=False),
        trainer,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def words_found(tokenizer: Tokenizer, text: str) -> list[str]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    starts = find_word_starts(encoding, text)
    places = [*starts.nonzero()[0].tolist(), len(starts)]
    spans = itertools.pairwise(places)
    return [
        text[encoding.offsets[begin][0] : encoding.offsets[end - 1][1]].strip()
        for begin, end in spans
    ]


@pytest.mark.parametrize("make", [sentence_piece, without_pre_tokenizer, byte_level])
def test_words_of_spaced_text_are_found_with_any_tokenizer(make):
    text = "they do split words a token is joined"
    tokenizer = make()
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) > len(text.split())
    assert words_found(tokenizer, text) == text.split()


def test_word_pieces_are_joined_and_punctuation_is_a_word():
    tokenizer = word_piece()
    found = words_found(tokenizer, "Joined, they split.")
    assert found == ["Joined", ",", "they", "split", "."]


def test_the_bytes_of_one_character_stay_together():
    encoding = byte_level().encode("aé 世", add_special_tokens=False)
    starts = find_word_starts(encoding, "aé 世")
    assert starts.sum() == 2
    assert starts[0]


def test_a_word_is_cut_after_so_many_tokens():
    text = "世界" * 20
    encoding = byte_level().encode(text, add_special_tokens=False)
    starts = find_word_starts(encoding, text)
    assert starts.nonzero()[0].tolist() == list(range(0, len(starts), LONGEST))


@pytest.mark.parametrize("make", [word_piece, byte_level, sentence_piece])
def test_sentences_begin_after_the_end_of_another(make):
    encoding = make().encode(TEXT, add_special_tokens=False)
    places = find_sentence_starts(encoding, TEXT)
    starts = [TEXT[encoding.offsets[place][0] :].strip() for place in places.tolist()]
    assert starts == ["Do they? They do!", "They do!"]


def test_spans_end_with_sentences_then_words_then_anywhere():
    words = np.array([place in {0, 2, 4, 5, 8, 20} for place in range(21)])
    assert cut_spans(21, 6, words, np.array([4])) == [(0, 4), (4, 8), (8, 14), (14, 20), (20, 21)]
    assert cut_spans(21, 6, words, np.array([3])) == [(0, 5), (5, 8), (8, 14), (14, 20), (20, 21)]
    assert cut_spans(0, 6, words[:0], np.zeros(0, dtype=int)) == []
    assert cut_spans(6, 6, words[:6], np.array([4])) == [(0, 6)]


def test_spans_cover_every_token_once():
    generator = np.random.default_rng(0)
    for _ in range(50):
        words = generator.random(100) < 0.3
        spans = cut_spans(100, 7, words, np.sort(generator.choice(100, 9)))
        assert [place for begin, end in spans for place in range(begin, end)] == list(range(100))
        assert max(end - begin for begin, end in spans) <= 7


def test_a_sentence_that_fills_a_span_ends_it():
    words = np.array([place in {0, 3} for place in range(9)])
    assert cut_spans(9, 4, words, np.array([4]))[0] == (0, 4)
