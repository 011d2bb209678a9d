"""Templates become tokens around two texts."""

import pytest
from language_toys import spelling_tokenizer

from embedtrain.encoding.language.prompts import TEMPLATES, open_prompt
from embedtrain.errors import UserError

TEXTS = ("is it red?", "the cat runs.")


def prompt(template, instruction=None, length=2048):
    return open_prompt(
        spelling_tokenizer(), template, instruction, default="plain", length=length, query_length=64
    )


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_tokens_of_a_pair_are_those_of_the_filled_template(name):
    """The toy tokenizer joins nothing across a text's ends but the space before it, which goes with the text."""
    opened = prompt(name)
    (ids,) = opened.join([TEXTS])[0].each()
    text = opened.text.replace("{query}", TEXTS[0]).replace("{document}", TEXTS[1])
    assert ids.tolist() == spelling_tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert "{" not in text


def test_a_chat_template_shows_the_question_as_a_turn_and_opens_the_answer():
    text = prompt("chat", "Find cats").text
    assert text.startswith("<turn>Task: Find cats\nQuery: {query}\nPassage: {document}")
    assert text.endswith("</turn><turn>")


@pytest.mark.parametrize(
    ("template", "shared"),
    [("Q {query} D {document} A", "Q is it red? D"), ("{document}:{query}", "the cat runs.:")],
)
def test_the_first_text_and_all_before_the_second_may_be_shared(template, shared):
    opened = prompt(template)
    texts, heads, _ = opened.join([TEXTS])
    assert spelling_tokenizer().decode(texts.ids[: int(heads)]) == shared


def test_a_document_too_long_leaves_the_template_and_the_query_whole():
    opened = prompt("Q {query} D {document} answer:", length=64)
    texts, _, cut = opened.join([("is it red?", "x" * 10_000)])
    text = spelling_tokenizer().decode(texts.ids)
    assert (len(texts.ids), cut) == (64, 1)
    assert text.startswith("Q is it red? D xxx")
    assert text.endswith("x answer:")


@pytest.mark.parametrize(
    ("template", "mistake"),
    [
        ("about {query}", r"--template must hold \{query\} and \{document\}, each once"),
        ("{query}{query}{document}", "each once"),
        ("qwen9", r"--template is no template; got 'qwen9'\. Give chat, plain"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, mistake):
    with pytest.raises(UserError, match=mistake):
        prompt(template)


def test_an_instruction_without_a_place_is_refused():
    with pytest.raises(UserError, match=r"has no place for the instruction.*Write \{instruction\}"):
        prompt("{query} {document}", "Find cats")


def test_a_template_longer_than_a_pair_is_refused():
    with pytest.raises(UserError, match="--length leaves nothing for a document beside"):
        prompt("plain", length=40)


def test_a_file_is_a_template(tmp_path):
    (tmp_path / "mine.txt").write_text("ask {query} of {document}: ", encoding="utf-8")
    assert prompt(str(tmp_path / "mine.txt")).text == "ask {query} of {document}: "


def test_a_tokenizer_without_a_chat_template_is_refused_one():
    tokenizer = spelling_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="asks for a chat template, and the tokenizer has none"):
        open_prompt(tokenizer, "chat", None, default="plain", length=99, query_length=9)
