"""What stands behind a text is never cut, and a text of several frames can be taken apart again."""

import numpy as np
import pytest
from backbone_toys import tokenizer

from embedtrain.contract.framing import FRAME, PLACE, Contrast, Frame, Framing, tokenise_framed
from embedtrain.contract.texts import Contract, Tokenization, TokenPrepending
from embedtrain.errors import UserError

FRAMED = Frame(prompt="the: ", suffix=" : a small house")
LONG = " ".join(["red cat runs over"] * 25)
USUAL = {
    "pooling": "mean", "similarity": "cosine", "query_prompt": "", "document_prompt": "",
    "query_length": 16, "document_length": 16,
}  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "bert", "t5"])
def toy(request):
    return tokenizer(request.param)


def ids_of(toy, text):
    return toy(text)["input_ids"]


def framed(toy, texts, frame=FRAMED, length=16, **more):
    return [ids.tolist() for ids in tokenise_framed(toy, texts, [frame], length, **more)]


def test_a_short_text_has_the_ids_of_the_whole_string(toy):
    assert framed(toy, ["red cat", ""]) == [
        ids_of(toy, "the: red cat : a small house"),
        ids_of(toy, "the:  : a small house"),
    ]


def test_a_cut_of_the_start_keeps_the_prompt_and_the_last_turn_whole(toy):
    talk = f"{LONG}. a small house near"
    [found] = framed(toy, [talk], Frame(prompt="the: "), keep_end=True)
    ends = [ids_of(toy, f"the: {talk[start:]}") for start in range(len(talk))]
    assert found == max((ids for ids in ends if len(ids) <= 16), key=len)
    last = toy(" a small house near", add_special_tokens=False)["input_ids"]
    assert any(found[place : place + len(last)] == last for place in range(len(found)))
    contract = Contract(**USUAL, framing=Framing(query_cut="start"))
    [query], [document] = (
        Tokenization(toy, contract)([talk], side) for side in ("query", "document")
    )
    assert query.tolist() == framed(toy, [talk], Frame(), keep_end=True)[0]
    assert document.tolist() == framed(toy, [talk], Frame())[0]


def test_a_suffix_survives_a_text_that_is_too_long(toy):
    [found] = framed(toy, [LONG])
    suffix = toy(FRAMED.suffix, add_special_tokens=False)["input_ids"]
    assert len(found) == 16
    assert any(found[place : place + len(suffix)] == suffix for place in range(len(found)))
    assert found[-1] == ids_of(toy, FRAMED.suffix)[-1]
    starts = [ids_of(toy, f"the: {LONG[:end]}{FRAMED.suffix}") for end in range(len(LONG))]
    assert found in starts
    longer = [ids for ids in starts if len(ids) <= 16]
    assert max(map(len, longer)) == len(found)


def test_a_seam_that_takes_a_token_more_costs_the_text_one():
    """The suffix begins within a word, so that the last word of the text is cut into other pieces than alone."""
    toy = tokenizer("llama")
    for length in range(6, 16):
        [found] = framed(toy, [LONG], Frame(suffix="s the a"), length)
        assert len(found) <= length
        assert found[-2:] == ids_of(toy, "the a")


def test_a_frame_that_leaves_no_room_is_refused(toy):
    with pytest.raises(UserError, match="leaves no room for the text"):
        framed(toy, [LONG], length=6)


def test_frames_lie_end_to_end_and_their_first_tokens_are_marked(toy):
    frames = [FRAMED, Frame(prompt="a "), Frame(suffix=" near")]
    [found] = tokenise_framed(toy, ["red cat"], frames, 16)
    marks = np.flatnonzero(found & FRAME)
    parts = [part.tolist() for part in np.split(found & (FRAME - 1), marks[1:])]
    shown = ("the: red cat : a small house", "a red cat", "red cat near")
    assert parts == [ids_of(toy, text) for text in shown]
    assert marks[0] == 0


def test_a_placeholder_stands_between_the_prompt_and_the_text(toy):
    texts = ["red cat", LONG, ""]
    for text, ids in zip(texts, tokenise_framed(toy, texts, [FRAMED], 16, place=7), strict=True):
        [where] = np.flatnonzero(ids & PLACE)
        assert ids[where] == 7 | PLACE
        assert len(ids) <= 16
        plain = np.delete(ids, where).tolist()
        if text != LONG:
            assert plain == ids_of(toy, FRAMED.prompt + text + FRAMED.suffix)
        before = toy.decode(plain[:where], skip_special_tokens=True).replace(" ", "")
        assert before == "the:"


def test_the_tokenizer_of_a_contract_frames_by_side_and_says_so_in_its_fingerprint():
    toy = tokenizer("llama")
    plain = Tokenization(toy, Contract(**USUAL))
    with_suffix = Tokenization(toy, Contract(**USUAL, framing=Framing(query_suffix=" near")))
    assert with_suffix(["red cat"], "query")[0].tolist() == ids_of(toy, "red cat near")
    assert with_suffix(["red cat"], "document")[0].tolist() == ids_of(toy, "red cat")
    others = [
        Framing(query_suffix=" over"),
        Framing(prompts=(Frame(prompt="a "),)),
        Framing(query_suffix=" near", contrast=Contrast(prompt="a ")),
    ]
    tokenizations = [plain, with_suffix]
    tokenizations += [Tokenization(toy, Contract(**USUAL, framing=one)) for one in others]
    prepend = TokenPrepending(place="before_text")
    tokenizations.append(Tokenization(toy, Contract(**USUAL, prepend=prepend)))
    assert len({one.fingerprint("query") for one in tokenizations}) == len(tokenizations)
    assert plain.fingerprint("query") == Tokenization(toy, Contract(**USUAL)).fingerprint("query")


def test_an_instruction_of_a_model_with_several_prompts_is_refused():
    contract = Contract(**USUAL, framing=Framing(prompts=(Frame(prompt="a "),)))
    with pytest.raises(
        UserError, match="--instruction does not go with a model of several prompts"
    ):
        contract.under("any")
