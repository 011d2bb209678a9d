import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_toys import ids_of, odd_texts, tokenizers_by_proof
from transformers import PreTrainedTokenizerFast

from embedtrain.contract import pieces
from embedtrain.contract.pieces import Pieces, tokenise_heads
from embedtrain.contract.texts import Contract, Tokenization

TOKENIZERS = tokenizers_by_proof()
KNOWN = {name: Pieces(tokenizer) for name, (tokenizer, _) in TOKENIZERS.items()}


def unpacked(ids):
    return memoryview(ids).cast("i").tolist()


@pytest.fixture(autouse=True, scope="module")
def small_heads():
    """Toys have short texts: let each be long, and each batch large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LEAST_CHARACTERS", 8)
        patch.setattr(pieces, "CHARACTERS_PER_TOKEN", 1)
        patch.setattr(pieces, "FEW", 1)
        yield


@pytest.mark.parametrize("name", [name for name, (_, proof) in TOKENIZERS.items() if proof])
@settings(max_examples=25)
@given(
    batch=st.lists(odd_texts(30), min_size=1, max_size=4), room=st.sampled_from([1, 5, 20, None])
)
def test_tokens_are_the_first_ones_of_the_whole_text(name, batch, room):
    found = [unpacked(ids) for ids in KNOWN[name].bodies(batch, room)]
    assert found == [ids_of(TOKENIZERS[name][0], text)[:room] for text in batch]


@pytest.mark.parametrize("name", [name for name, (_, proof) in TOKENIZERS.items() if not proof])
@pytest.mark.parametrize("room", [1, 2, 3, 4, 5, 6, 7])
def test_where_no_cut_is_proved_what_stands_behind_it_counts(name, room):
    for text in ("re cat, we are " * 200, "the red cat 中文 " * 200):
        [ids] = KNOWN[name].bodies([text], room)
        assert unpacked(ids) == ids_of(TOKENIZERS[name][0], text)[:room]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_a_long_text_only_the_start_is_read(name, monkeypatch):
    read = []
    inner = Pieces._tokenise
    monkeypatch.setattr(pieces, "LEAST_CHARACTERS", 4096)
    monkeypatch.setattr(
        Pieces, "_tokenise", lambda self, some: read.extend(map(len, some)) or inner(self, some)
    )
    text = "the red cat, 中文 and its dogs. " * 20_000
    known = Pieces(TOKENIZERS[name][0])
    [ids] = known.bodies([text], 128)
    assert sum(read) < 20_000
    assert unpacked(ids) == ids_of(TOKENIZERS[name][0], text[:50_000])[:128]


@pytest.mark.parametrize(
    "text",
    ["x" * 3000, "-x" + "y" * 900 + "[SEP] " + "z1" * 900 + ".", "[MASK]" + "a" * 700 + "[MASK]"],
)
def test_of_a_word_without_end_its_ends_are_read(text, monkeypatch):
    read = []
    inner = Pieces._tokenise
    monkeypatch.setattr(
        Pieces, "_tokenise", lambda self, some: read.extend(map(len, some)) or inner(self, some)
    )
    for name in ("bert", "words"):
        read.clear()
        [ids] = KNOWN[name].bodies([text], 30)
        assert unpacked(ids) == ids_of(TOKENIZERS[name][0], text)[:30]
        assert max(read) < 250


def test_a_head_with_too_few_tokens_is_read_on():
    tokenizer = TOKENIZERS["bert"][0]
    text = "\u200d" * 500 + "cat dog " + "x" * 2000 + " cat" * 50
    [ids] = KNOWN["bert"].bodies([text], 30)
    assert unpacked(ids) == ids_of(tokenizer, text)[:30]
    assert len(unpacked(ids)) == 30


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("split", [True, False], ids=["split", "special"])
def test_texts_get_the_tokens_that_transformers_gives_them(bert, side, split, sentences):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        bert, truncation_side=side, split_special_tokens=split
    )
    batch = [*sentences, "", "a [SEP] cat", "[MASK]", "red " * 5000, " ", "café red\n\nred  cat"]
    expected = tokenizer(batch, truncation=True, max_length=9)["input_ids"]
    found = tokenise_heads(tokenizer, batch, 9)
    assert [one.tolist() for one in found] == expected
    again = tokenise_heads(tokenizer, batch, 9)
    assert [one.tolist() for one in again] == expected
    found[0][:] = 0  # whoever gets them may write to them


def test_tokens_that_were_added_since_count(bert):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bert)
    batch = ["red cat qqq zzz"] * 40
    tokenise_heads(tokenizer, batch, 9)
    tokenizer.add_tokens(["qqq"])
    assert tokenise_heads(tokenizer, batch, 9)[0].tolist() == tokenizer(batch[0])["input_ids"][:9]


def test_a_tokenizer_with_ways_of_its_own_is_asked_itself(bert):
    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, text, **options):
            return super()._encode_plus([f"red {one}" for one in text], **options)

    tokenizer = Own.from_pretrained(bert)
    assert tokenise_heads(tokenizer, ["cat"] * 99, 9) is None
    contract = Contract(
        pooling="mean", similarity="cosine", query_prompt="", document_prompt="",
        query_length=9, document_length=9,
    )  # fmt: skip
    found = Tokenization(tokenizer, contract)(["cat"] * 99, "query")
    assert (
        found[0].tolist() == PreTrainedTokenizerFast.from_pretrained(bert)("red cat")["input_ids"]
    )
