import pytest

from embedtrain.data.words import language_of, longest_run, num_words, overlap, words_of


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
        ("Насос котла треба промивати раз на рік, і він її гріє.", "uk"),  # noqa: RUF001
        ("Помпата на котела трябва да се изплаква, а варовикът остава в тръбите.", "bg"),  # noqa: RUF001
        ("يجب شطف مضخة الغلاية مرة واحدة في السنة", "ar"),
        ("پمپ دیگ بخار باید سالی یک بار شسته شود", "fa"),
        ("boiler pump", None),
        ("", None),
    ],
)
def test_languages_are_known_by_script_or_stop_words(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "Pompa kotła musi być płukana raz w roku. To jest do tego, a to nie jest na wodę.",
        "Kattilan pumppu on huuhdeltava kerran vuodessa. Kalkki, joka on putkissa, on syy siihen.",
        "Pannans pump måste sköljas en gång om året, och de gamla rören är en del av det.",
        "Čerpadlo kotle se musí jednou za rok propláchnout, a po letech se zastaví na místě.",
        "Pompa cazanului trebuie clătită o dată pe an, iar calcarul rămâne în țevi.",
        "Kedlens pumpe skal skylles en gang om året, og den er en del af det, der står i den.",
        "A csövekben maradó vízkő hangosabbá teszi a szivattyút, és a víz is hidegebb.",
        "Пумпу котла треба испирати једном годишње, а каменац остаје у цевима.",  # noqa: RUF001
        "بوائلر کے پمپ کو سال میں ایک بار دھونا چاہیے",
    ],
)
def test_a_language_that_is_not_known_here_is_none_and_no_other(text):
    assert language_of(text) is None


def test_signs_for_vowels_end_no_word():
    text = "बॉयलर के पंप को साल में एक बार धोना चाहिए"
    assert num_words(text) == 10
    assert words_of(text) == tuple(text.split())


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
