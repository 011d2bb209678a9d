"""What repeats a known text, as a whole or in part."""

import pytest
import torch
from sentence_toys import sentence

from embedtrain.data.copies import Copies

PAGE = (
    "The valve opens when the pressure rises above two bar. Turn the screw to the left to close it."
)
OTHER = "A pump that runs dry breaks within minutes, so look at the level of the oil every morning."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PAGE, 0),
        (PAGE.upper().replace(".", " !"), 0),
        ("Turn the screw to the left to close it.", 0),  # a part
        (f"Chapter 3. {OTHER} Then write the level down.", 1),  # the page around it
        ("Turn the screw to the right to open it.", None),  # the same words in part
        ("the pressure rises", None),  # too short to be found by anything but chance
        ("", None),
    ],
)
def test_a_part_of_a_known_text_and_what_is_around_one_are_found(text, found):
    assert Copies([PAGE, OTHER]).find(text) == found


def test_short_texts_repeat_short_ones_only():
    known = Copies(["Yes, of course.", PAGE])
    assert known.find("yes of course") == 0
    assert known.find("Is it safe to open the valve? Yes, of course. Turn it to the left.") is None


def test_nothing_repeats_nothing():
    assert Copies([]).find(PAGE) is None


def test_many_texts_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    texts = list(dict.fromkeys(sentence(generator, 12) for _ in range(300)))
    known = Copies(texts)
    assert [known.find(text) for text in texts[::7]] == list(range(len(texts)))[::7]
    # Nine words of twelve: seven shingles, all of which the whole has.
    cut = [" ".join(text.split()[2:11]) for text in texts]
    assert [known.find(text) for text in cut[::7]] == list(range(len(texts)))[::7]
