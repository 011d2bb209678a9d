import pytest
from hypothesis import given, settings
from tokenizer_toys import ids_of, odd_texts, tokenizers_by_proof
from tokenizers import AddedToken

from embedtrain.contract.cuts import BOUNDARY, Proof, ends_well, prove

TOKENIZERS = tokenizers_by_proof()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_proved_of_each_family(name):
    tokenizer, proof = TOKENIZERS[name]
    assert prove(tokenizer.to_str()) == proof


@pytest.mark.parametrize("name", [name for name, (_, proof) in TOKENIZERS.items() if proof])
@settings(max_examples=40)
@given(text=odd_texts())
def test_tokens_before_and_behind_a_boundary_are_those_of_the_whole_text(name, text):
    tokenizer, proof = TOKENIZERS[name]
    whole = ids_of(tokenizer, text)
    for boundary in BOUNDARY.finditer(text):
        head = ids_of(tokenizer, text[: boundary.start()])
        assert head == whole[: len(head)]
        if proof == Proof.PIECES:
            assert head + ids_of(tokenizer, text[boundary.start() :]) == whole


def test_a_tokenizer_without_proof_can_differ_at_a_boundary():
    tokenizer, _ = TOKENIZERS["crossing"]
    head = ids_of(tokenizer, "re")
    assert head != ids_of(tokenizer, "re cat")[: len(head)]


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("new york", normalized=False),
        AddedToken("york", lstrip=True),
        AddedToken("york", rstrip=True),
        AddedToken("york "),
    ],
)
def test_an_added_token_that_may_hold_a_boundary_leaves_nothing_proved(token):
    tokenizer = tokenizers_by_proof()["bert"][0]
    tokenizer.add_tokens([token])
    assert prove(tokenizer.to_str()) == Proof.NOTHING


def test_pieces_end_well_before_a_boundary_only():
    assert [ends_well(piece) for piece in ("a", "a.", "é", "", "a\n", "中", "a ")] == [
        *[True] * 3, *[False] * 4
    ]  # fmt: skip
