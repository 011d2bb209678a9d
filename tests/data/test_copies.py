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
        (PAGE, [0]),
        (PAGE.upper().replace(".", " !"), [0]),
        ("Turn the screw to the left to close it.", [0]),  # a part
        (f"Chapter 3. {OTHER} Then write the level down.", [1]),  # the page around it
        ("Turn the screw to the right to open it.", []),  # the same words in part
        ("the pressure rises", []),  # too short to be found by anything but chance
        ("", []),
        (f"{OTHER} {PAGE}", [0, 1]),
    ],
)
def test_a_part_of_a_known_text_and_what_is_around_one_are_found(text, found):
    assert Copies([PAGE, OTHER]).find(text).tolist() == found


def test_short_texts_repeat_short_ones_only():
    known = Copies(["Yes, of course.", PAGE])
    assert known.find("yes of course").tolist() == [0]
    assert (
        known.find("Is it safe to open the valve? Yes, of course. Turn it to the left.").size == 0
    )


def test_nothing_repeats_nothing():
    assert Copies([]).find(PAGE).size == 0


def test_many_texts_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    texts = list(dict.fromkeys(sentence(generator, 12) for _ in range(300)))
    known = Copies(texts)
    assert [known.find(text).tolist() for text in texts[::7]] == [
        [n] for n in range(0, len(texts), 7)
    ]
    # Nine words of twelve: seven shingles, all of which the whole has.
    cut = [" ".join(text.split()[2:11]) for text in texts]
    assert [known.find(text).tolist() for text in cut[::7]] == [
        [n] for n in range(0, len(texts), 7)
    ]


def test_characters_count_as_words_where_no_spaces_stand():
    answer = "阀门在压力超过两巴时打开。向左转动螺丝即可关闭。"
    page = f"第三章。{answer}然后记录压力。泵在干转时会损坏。"
    assert Copies([answer]).find(page).tolist() == [0]
    assert Copies([answer]).find("泵在干转时几分钟内就会损坏。所以每天早上检查油位。").size == 0


def test_what_a_thousand_texts_share_tells_of_none(monkeypatch):
    monkeypatch.setattr("embedtrain.data.copies.MOST_OWNERS", 50)
    generator = torch.Generator().manual_seed(1)
    phrase = "please ask your doctor before you take any of these tablets with other medicine"
    texts = [f"{sentence(generator, 9)} {phrase}" for _ in range(60)]
    known = Copies(texts)
    assert known.find(f"{sentence(generator, 9)} {phrase}").size == 0
    assert 7 in known.find(texts[7])
