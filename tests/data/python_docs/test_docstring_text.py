import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.data.python_docs.docstring_text import (
    first_sentence,
    is_boilerplate,
    normalize,
    plain,
    shorten,
    split_signature,
)


@pytest.mark.parametrize(
    ("text", "sentence", "rest"),
    [
        ("Find peaks.", "Find peaks", ""),
        (
            "Find peaks in\na signal. Uses e.g. slopes.\n\nMore.",
            "Find peaks in a signal",
            "Uses e.g. slopes.\n\nMore.",
        ),
        ("Use e.g. numpy.fft here\n\nMore. Still.", "Use e.g. numpy.fft here", "More. Still."),
        ("Sum rows\nArgs:\n  x: rows\n\nMore", "Sum rows", "Args:\n  x: rows\n\nMore"),
        ("Sum rows\n--------\nMore", "Sum rows", "--------\nMore"),
        ("Version 1.5 of it! Then", "Version 1.5 of it", "Then"),
        ("", "", ""),
    ],
)
def test_the_first_sentence_is_split_from_the_rest(text, sentence, rest):
    assert first_sentence(text) == (sentence, rest)


@given(st.text(alphabet="ab .!\n:A", max_size=60))
def test_splitting_loses_no_word(text):
    sentence, rest = first_sentence(text)
    assert normalize(f"{sentence} {rest}") == normalize(text)


def test_a_signature_on_the_first_line_is_taken_off():
    assert split_signature("abs(x, /) -> Tensor\n\nDo it.") == ("(x, /) -> Tensor", "Do it.")
    assert split_signature("Do it (now)\nor never") == ("", "Do it (now)\nor never")
    assert split_signature("f(x)") == ("", "f(x)")


@pytest.mark.parametrize(
    ("marked", "words"),
    [
        (":func:`~numpy.fft.fft` and :py:class:`A.b`", "fft and A.b"),
        (":ref:`the guide <guide-label>`", "the guide"),
        ("``x`` or `y` or `site`_", "x or y or site"),
        ("[`~Trainer.train`] see [docs](https://x.y/z)", "Trainer.train see docs"),
        ("**bold** and *slanted* but *args, **kwargs", "bold and slanted but *args, **kwargs"),
        ("Title\n=====\n\n\n  text", "Title\n  text"),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_markup_goes_and_words_stay(marked, words):
    assert plain(marked) == words


@pytest.mark.parametrize(
    "query",
    [
        "Split a list into chunks of equal size",
        "Compute the eigenvalues of a general matrix",
        "Like-minded users are grouped by their ratings",
        "Seed the generator of random numbers",
        "Load texture from a Quake2 WAL texture file",
    ],
)
def test_a_sentence_that_describes_is_kept(query):
    assert not is_boilerplate(query)


@pytest.mark.parametrize(
    "query",
    [
        "Return self",
        "Return self plus the given value",
        "See also the function of this name",
        "TODO: describe what this function does",
        "Deprecated since version 2, use other_function instead",
        "See the docstring of the parent class for this",
        "labels (torch.LongTensor of shape (n,), optional): Labels for the loss",
        ":param appname: the name of the application",
        "Input shape: Batch x Time x Channel here",
        "This is the equivalent of the function above",
        "Test that the function does what it should",
        "x = 1; y = 2; z = 3; w = 4; v = 5",
        "{'a': 1, 'b': 2, 'c': 3, 'd': [1, 2, 3]}",
        "Lies sie mir bitte einen schönen Text vor",
        "word " * 41,
    ],
)
def test_a_sentence_that_says_nothing_is_dropped(query):
    assert is_boilerplate(query)


def test_two_texts_with_the_same_words_are_the_same():
    assert normalize("The  `x`-Ray!") == normalize("the x ray") == "the x ray"


@given(st.text(max_size=80), st.integers(1, 60))
def test_a_shortened_text_is_a_beginning_of_the_text(text, length):
    short = shorten(text, length)
    assert text.startswith(short)
    assert len(short) <= length
