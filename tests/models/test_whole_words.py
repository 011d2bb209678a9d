import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from embedtrain.models.whole_words import WholeWords, average_words
from embedtrain.packed import Texts

SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def tokenizer(pieces: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL.values(), *pieces])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def ids_of(fast: PreTrainedTokenizerFast, *pieces: str) -> torch.Tensor:
    return torch.tensor(fast.convert_tokens_to_ids(list(pieces)))


def test_pieces_of_a_word_share_its_id_and_special_tokens_are_no_words():
    fast = tokenizer(["em", "##bed", "##ding", "cat"])
    ids = ids_of(fast, "[CLS]", "em", "##bed", "##ding", "cat", "em", "[SEP]")
    words, kept = WholeWords(fast)(ids, torch.tensor([7]))
    assert kept.tolist() == [False, True, True, True, True, True, False]
    assert words[1] == words[2] == words[3]
    assert len(set(words[[1, 4, 5]].tolist())) == 3


def test_the_id_of_a_word_depends_on_its_letters_only():
    fast = tokenizer(["em", "##bed", "embed", "Embed"])
    texts = [ids_of(fast, "em", "##bed"), ids_of(fast, "embed"), ids_of(fast, "Embed")]
    words, _ = WholeWords(fast)(torch.cat(texts), torch.tensor([2, 1, 1]))
    assert len(set(words.tolist())) == 1


def test_sentencepiece_words_start_at_their_mark_and_punctuation_stands_alone():
    fast = tokenizer(["▁in", "dex", ",", "▁cat"])
    words, _ = WholeWords(fast)(ids_of(fast, "▁in", "dex", ",", "dex", "▁cat"), torch.tensor([5]))
    assert words[0] == words[1]
    assert len(set(words.tolist())) == 4


def test_words_do_not_reach_into_the_next_text():
    fast = tokenizer(["em", "##bed"])
    words, _ = WholeWords(fast)(ids_of(fast, "em", "##bed"), torch.tensor([1, 1]))
    assert words[0] != words[1]


def test_a_text_of_special_tokens_keeps_its_first():
    fast = tokenizer(["em"])
    _, kept = WholeWords(fast)(ids_of(fast, "[CLS]", "[SEP]", "em"), torch.tensor([2, 1]))
    assert kept.tolist() == [True, False, True]


def test_a_word_of_three_pieces_is_their_mean_and_every_occurrence_counts():
    states = torch.tensor([[1.0], [2.0], [6.0], [5.0], [7.0]], requires_grad=True)
    words = Texts(torch.tensor([9, 9, 9, 4, 9]), torch.tensor([4, 1, 0]))
    means, distinct = average_words(states, words)
    assert means.squeeze(1).tolist() == [5.0, 3.0, 7.0]
    assert distinct.ids.tolist() == [4, 9, 9]
    assert distinct.lengths.tolist() == [2, 1, 0]
    means.sum().backward()
    torch.testing.assert_close(states.grad[:3], torch.full((3, 1), 1 / 3))
