"""Tokenizers of fewer entries cut texts of those that stayed as the whole ones do."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from embedtrain.errors import UserError
from embedtrain.models.edits.prune_tokenizer import close_over, entries_of, prune_tokenizer

TEXTS = (
    "the hello hallo of lower yellow fellows",
    "below the mellow willow, a fellow bellows",
    "swallow and follow the shallow hollow",
    "low lower lowest hello hellos yellower",
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def trained(kind: str) -> Tokenizer:
    """Return a tokenizer of a few words, with special tokens around each text."""
    model: Any
    trainer: Any
    if kind == "wordpiece":
        model = models.WordPiece(unk_token="[UNK]")
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL)
    elif kind == "bpe":
        model, trainer = (
            models.BPE(),
            trainers.BpeTrainer(
                vocab_size=330,
                special_tokens=SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
    elif kind == "unigram":
        model = models.Unigram()
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="[UNK]")
    else:
        model = models.WordLevel(unk_token="[UNK]")
        trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL)
    made = Tokenizer(model)
    whole = pre_tokenizers.ByteLevel() if kind == "bpe" else pre_tokenizers.Whitespace()
    made.pre_tokenizer = whole
    made.train_from_iterator([*TEXTS] * 3, trainer)
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return made


def pruned(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tokenizer, list[int]]:
    """Return the tokenizer of what some texts need, and which entries stayed."""
    content = json.loads(tokenizer.to_str())
    used = {entry for text in texts for entry in tokenizer.encode(text).ids}
    kept = close_over(content, used)
    return Tokenizer.from_str(json.dumps(prune_tokenizer(content, kept))), kept


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "wordlevel"])
def test_texts_of_kept_entries_are_cut_as_before(kind: str) -> None:
    whole = trained(kind)
    smaller, kept = pruned(whole, TEXTS[:2])
    assert len(kept) < whole.get_vocab_size()
    known = set(kept)
    words = sorted({word for text in TEXTS for word in text.split()})
    tried = 0
    for text in (*TEXTS[:2], *words):
        ids = whole.encode(text).ids
        if known.issuperset(ids):
            assert [kept[entry] for entry in smaller.encode(text).ids] == ids
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_no_text_becomes_unknown(kind: str) -> None:
    smaller, _ = pruned(trained(kind), TEXTS[:1])
    for text in TEXTS:
        assert "[UNK]" not in smaller.encode(text).tokens


def hello() -> dict[str, Any]:
    """Return the JSON of a tokenizer whose merges make one word."""
    entries = ["h", "e", "l", "o", "he", "ll", "llo", "hello"]
    merges = [["h", "e"], ["l", "l"], ["ll", "o"], ["he", "llo"]]
    model = models.BPE({word: place for place, word in enumerate(entries)}, [])
    content: dict[str, Any] = json.loads(Tokenizer(model).to_str())
    content["model"]["merges"] = merges
    return content


def test_a_kept_word_keeps_the_way_to_it() -> None:
    """Of ``hello`` alone he, ll and llo go, and with them every merge that makes it."""
    content = hello()
    kept = close_over(content, [7])
    assert kept == list(range(8))
    assert Tokenizer.from_str(json.dumps(prune_tokenizer(content, kept))).encode("hello").ids == [7]
    alone = Tokenizer.from_str(json.dumps(prune_tokenizer(content, [0, 1, 2, 3, 7])))
    assert alone.encode("hello").tokens == ["h", "e", "l", "l", "o"]


def test_merges_of_old_files_are_read() -> None:
    content = hello()
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    assert close_over(content, [5]) == [0, 1, 2, 3, 5]
    smaller = prune_tokenizer(content, [0, 1, 2, 3, 5])
    assert smaller["model"]["merges"] == ["l l"]
    assert smaller["model"]["vocab"]["ll"] == 4


def test_every_way_to_a_word_stays() -> None:
    """``abc`` is made of ab and c, or of a and bc: which, depends on what stands around it."""
    entries = {word: place for place, word in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    merges = [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
    content = json.loads(Tokenizer(models.BPE(entries, [])).to_str())
    content["model"]["merges"] = merges
    assert close_over(content, [5]) == [0, 1, 2, 3, 4, 5]


def test_unigram_keeps_its_lowest_score_and_what_was_chosen() -> None:
    """The score of an unknown character hangs on the lowest one."""
    pieces = [("a", -1.0), ("b", -1.0), ("ab", -1.5), ("abc", -4.0), ("c", -2.0), ("abca", -9.0)]
    content = json.loads(Tokenizer(models.Unigram(pieces, unk_id=None)).to_str())
    whole = Tokenizer.from_str(json.dumps(content))
    used = whole.encode("abc").ids
    assert used == [2, 4]
    kept = close_over(content, used)
    assert kept == [0, 1, 2, 4, 5]
    assert prune_tokenizer(content, kept)["model"]["vocab"][-1] == ["abca", -9.0]


def test_what_is_put_around_texts_has_its_new_numbers() -> None:
    content = json.loads(trained("wordlevel").to_str())
    content["post_processor"] = {
        "type": "Sequence",
        "processors": [{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}],
    }
    content["added_tokens"] = []
    kept = close_over(content, [9])
    assert kept == [1, 2, 3, 9]
    (inner,) = prune_tokenizer(content, kept)["post_processor"]["processors"]
    assert inner == {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}


def test_bytes_stay() -> None:
    content = json.loads(Tokenizer(models.BPE({"<0x0A>": 0, "word": 1, "x": 2}, [])).to_str())
    assert close_over(content, []) == [0, 2]
    assert entries_of(content)["word"] == 1


def test_an_unknown_kind_is_refused() -> None:
    content = {"model": {"type": "Other", "vocab": {}}, "added_tokens": [], "post_processor": None}
    with pytest.raises(UserError, match="kind whose vocabulary cannot be cut; got 'Other'"):
        close_over(content, [])
