import pytest

from embedtrain.synthesis.words import language_of, longest_run, num_words, overlap, words_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the cat is on the roof of the house", "en"),
        ("die Katze ist auf dem Dach und schläft", "de"),
        ("le chat est sur le toit de la maison", "fr"),
        ("el gato está en el tejado de la casa", "es"),
        ("il gatto è sul tetto della casa e dorme con gli altri", "it"),
        ("de kat is op het dak van een huis", "nl"),
        ("кошка на крыше дома", "ru"),
        ("猫在屋顶上", "zh"),
        ("猫は屋根の上にいる", "ja"),
        ("boiler pump", None),
        ("", None),
    ],
)
def test_languages_are_known_by_script_or_stop_words(text, language):
    assert language_of(text) == language


def test_words_are_counted_by_characters_where_there_are_no_blanks():
    assert num_words("what is a pump") == 4
    assert num_words("多久清洗一次加热设备") == 5


def test_the_longest_run_is_of_words_in_a_row():
    text = words_of("a b c d e a b x")
    assert longest_run(words_of("z b c d q a b"), text) == 3
    assert longest_run(words_of("q"), text) == 0


def test_overlap_is_of_content_words():
    assert overlap("how often is the pump rinsed", "a pump") == pytest.approx(1 / 3)
    assert overlap("the of", "nothing") == 1
