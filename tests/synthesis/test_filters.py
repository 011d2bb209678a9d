import pytest
from synthesis_toys import row

from embedtrain.synthesis.filters import apply, text_tests
from embedtrain.synthesis.settings import SynthesisConfig

ENGLISH = (
    "The pump of the boiler has to be rinsed once a year. Lime that stays in its pipes makes the pump "
    "louder and the water colder, and after some years it stops."
)
GERMAN = (
    "Die Pumpe des Kessels ist einmal im Jahr zu spülen. Kalk, der in den Rohren bleibt, macht die Pumpe "
    "lauter und das Wasser kälter, und nach einigen Jahren steht sie still."
)
CHINESE = "锅炉的水泵每年需要冲洗一次。留在管道里的水垢会使水泵变响,水变凉,几年后水泵就会停止工作。"
GOOD = {
    "en": ("how often should I clean the boiler's circulation", ENGLISH),
    "de": ("wie oft muss man die Heizung reinigen", GERMAN),
    "zh": ("多久清洗一次加热设备", CHINESE),
}
EXAMPLES = ("how do I reset the lathe safely",)


def taken(query, text=ENGLISH, **facts):
    one = row(query, text, **facts)
    apply([one], text_tests(SynthesisConfig(), EXAMPLES))
    return one.taken_by


@pytest.mark.parametrize("language", GOOD)
def test_a_query_that_people_would_ask_passes(language):
    assert taken(*GOOD[language]) == ""


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("boiler", ENGLISH),
        (" ".join(f"word{n}" for n in range(41)), ENGLISH),
        ("Here are two potential questions about the boiler", ENGLISH),
        ("Query: how often is it cleaned", ENGLISH),
        ("1. how often is it cleaned", ENGLISH),
        ("how often\nis it cleaned", ENGLISH),
        ("**how often** is it cleaned", ENGLISH),
        ("I'm sorry, I cannot help with the boiler", ENGLISH),
        ("Frage: wie oft muss man reinigen", GERMAN),
        ("Hier ist eine Frage zur Heizung", GERMAN),
        ("问题:多久清洗一次", CHINESE),
        ("好的,多久清洗一次", CHINESE),
    ],
)
def test_what_is_no_query_is_taken_for_its_form(query, text):
    assert taken(query, text) == "form"


@pytest.mark.parametrize("finish", ["stop", "eos", "end_turn", "complete"])
def test_servers_have_many_words_for_a_good_end(finish):
    assert taken(GOOD["en"][0], finish=finish) == ""


@pytest.mark.parametrize("finish", ["length", "empty", "failed", "content_filter"])
def test_an_answer_that_was_cut_is_taken(finish):
    assert taken(GOOD["en"][0], finish=finish) == "form"


def test_an_example_of_the_prompt_is_taken_unless_the_text_speaks_of_it():
    assert taken("How do I reset the lathe safely?") == "bleed"
    assert taken("how to reset a lathe safely", "To reset the lathe safely, pull the plug.") == ""


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("what does the author say of boilers", ENGLISH),
        ("how often is cleaning mentioned", ENGLISH),
        ("was sagt dieser Text über die Heizung", GERMAN),
        ("这篇文章说多久清洗一次", CHINESE),
    ],
)
def test_a_query_that_points_at_its_text_is_taken(query, text):
    assert taken(query, text) == "source_words"


def test_a_copy_is_taken_and_key_words_are_not():
    copied = "the pump of the boiler has to be rinsed once"
    assert taken(copied) == "copy"
    most = "pump of the boiler has to rinsed year"
    assert taken(most) == "copy"
    assert taken(most, type="keywords") == ""
    assert taken(GERMAN[:60], GERMAN) == "copy"
    assert taken(CHINESE[:12], CHINESE) == "copy"


def test_rules_may_copy_but_not_what_is_left_of_the_text():
    assert taken(ENGLISH[:52], maker="first", positive="Lime makes it loud.") == ""
    assert taken(ENGLISH[:52], maker="first", positive=ENGLISH) == "copy"
    assert taken(ENGLISH[:52], maker="crop", positive=ENGLISH) == ""


def test_another_language_than_the_text_is_taken():
    assert taken(GOOD["en"][0], GERMAN) == "language"
    assert taken(GOOD["de"][0], ENGLISH) == "language"
    assert taken(GOOD["en"][0], CHINESE) == "language"
    assert taken("boiler pump lime", GERMAN) == ""  # nobody can say


@pytest.mark.parametrize(
    "query",
    [
        "how do I reach anna.b@example.org about pumps",
        "who answers at +49 30 1234 5678",
        "pay to DE89 3704 0044 0532 0130 00 for what",
        "what is order 1234567890123",
        "use key sk-abcdefghijklmnop1234 for what",
    ],
)
def test_secrets_are_taken_from_rules_too(query):
    assert taken(query) == "secrets"
    assert taken(query, maker="crop") == "secrets"


def test_years_versions_and_measures_are_no_secrets():
    for query in (
        "what changed in python 3.11.4",
        "pumps sold 2019-2024 in Europe",
        "is 12000 rpm too fast",
    ):
        assert taken(query) == ""
