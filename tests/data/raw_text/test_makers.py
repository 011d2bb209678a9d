import pytest

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.data.words import shared_words
from embedtrain.errors import UserError

SENTENCES = [
    "The old mill stands by the river.",
    "Its wheel has not turned in years!",
    "Children (some of them) fish there?",
    "In winter the pond freezes over.",
]
DOCUMENT = " ".join(SENTENCES[:2]) + "\n\n" + " ".join(SENTENCES[2:])


def pairs_of(examples):
    return [(one.query, text) for one in examples for text in one.positives]


def test_all_neighbour_pairs_of_four_sentences(rows):
    found = pairs_of(rows([DOCUMENT], pairs="neighbours"))
    wanted = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
    assert found == [(SENTENCES[left], SENTENCES[right]) for left, right in wanted]


def test_a_window_reaches_further(rows):
    first = rows([DOCUMENT], pairs="neighbours", window=2)[0]
    assert first.positives == (SENTENCES[1], SENTENCES[2])


def test_the_rest_of_a_document_is_no_negative_unless_one_asks(rows):
    second = rows([DOCUMENT], pairs="neighbours")[1]
    assert set(second.not_negatives) == {SENTENCES[1], SENTENCES[3]}
    second = rows([DOCUMENT], pairs="neighbours", same_document="negative")[1]
    assert second.not_negatives == (SENTENCES[1],)  # never itself


def test_a_short_sentence_is_joined_with_its_next(rows):
    found = rows(
        ["He came. He saw the whole of it. Then nobody spoke for a while."], pairs="neighbours"
    )
    assert pairs_of(found)[0] == (
        "He came. He saw the whole of it.",
        "Then nobody spoke for a while.",
    )


def test_a_document_with_one_unit_yields_nothing_and_is_counted(rows, capsys):
    assert len(rows([DOCUMENT, "One sentence is all there is."], pairs="neighbours")) == 4
    assert "4 rows (neighbours) of 2 documents, 1 of which give none" in capsys.readouterr().err


def test_rows_that_are_parts_of_a_document_are_one(rows):
    parts = [{"text": text, "of": name} for text, name in zip(SENTENCES, "aabb", strict=True)]
    found = pairs_of(rows(parts, pairs="neighbours", part_of="of"))
    assert found == [
        (SENTENCES[left], SENTENCES[right]) for left, right in [(0, 1), (1, 0), (2, 3), (3, 2)]
    ]
    with pytest.raises(UserError, match="does not say in 'from' what it is a part of"):
        rows(parts, pairs="neighbours", part_of="from")


def test_a_body_has_no_title(rows):
    text = "Mill: the mill by the river, seen from the bridge."
    found = rows([{"title": "Mill", "text": text}, SENTENCES[0]], pairs="title")
    assert pairs_of(found) == [("Mill", "the mill by the river, seen from the bridge.")]


def test_headings_are_told_by_the_marks_below(rows):
    text = (
        "Water mills\n===========\n\nUse\n---\nThey grind corn for the whole village.\n\n"
        "Care of the wheel\n-----------------\n" + SENTENCES[1] + " " + "It is old. " * 60
    )
    (first, second) = pairs_of(rows([text], pairs="headings"))
    assert first[0] == "Water mills Use"
    assert second[0] == "Care of the wheel"
    assert second[1].startswith(SENTENCES[1])
    assert pairs_of(rows([text], pairs="title"))[0][0] == "Water mills"


def test_a_heading_of_several_documents_asks_for_none(rows):
    named = [
        f"See also\n========\n\n{sentence}\n\nThe {n}. mill\n===========\n\n{sentence}"
        for n, sentence in enumerate(SENTENCES[:2])
    ]
    assert [query for query, _ in pairs_of(rows(named, pairs="headings"))] == [
        "The 0. mill",
        "The 1. mill",
    ]


def test_crops_are_drawn_from_the_document_and_stay_the_same(rows):
    words = [f"w{number}" for number in range(200)]
    settings = {"pairs": "crops", "draws": 40}
    found = rows([" ".join(words)], **settings)
    assert found == rows([" ".join(words)], **settings)
    assert found != rows([" ".join(words)], draw_seed=1, **settings)
    lengths = [len(one.positives[0].split()) for one in found]
    assert min(lengths) >= 10
    assert max(lengths) <= 100
    assert sum(lengths) / 40 == pytest.approx(55, abs=15)
    lost = 1 - sum(len(one.query.split()) for one in found) / (40 * 55)
    assert 0 < lost < 0.35
    assert len(found[0].not_negatives) == 39


def test_a_position_is_one_of_five_parts(rows):
    units = [f"Sentence number {number} says a little." for number in range(7)]
    found = rows([" ".join(units), DOCUMENT], pairs="position")
    assert [one.query for one in found] == units == [one.positives[0] for one in found]
    assert [one.scores for one in found] == [(part,) for part in (0, 0, 1, 2, 2, 3, 4)]


def test_a_depth_is_the_number_of_headings_above(rows):
    one, two, three = (f"Sentence number {number} says a little." for number in range(3))
    markdown = f"{one}\n\nFirst\n=====\n\n{two}\n\nWithin\n------\n\n{three}\n"
    found = rows([markdown, DOCUMENT], pairs="depth")
    assert [one.query for one in found] == [one, two, three] == [o.positives[0] for o in found]
    assert [one.scores for one in found] == [(0,), (1,), (2,)]


def test_draws_limit_the_rows_of_a_document(rows):
    long = " ".join(f"Sentence number {number} says a little." for number in range(50))
    assert len(rows([long, DOCUMENT], pairs="neighbours", draws=3)) == 6


def test_texts_with_one_translation_are_paraphrases(rows):
    bitext = [
        {"sentence1": "Where is the old mill?", "sentence2": "Où est le moulin ?"},
        {"sentence1": "where is the old mill", "sentence2": "où est le moulin?"},
        {"sentence1": "Where do I find the mill?", "sentence2": "Où est le moulin?"},
        {"sentence1": "Nobody knows.", "sentence2": "Où est le moulin?"},
        {"sentence1": "I like the mill.", "sentence2": "J'aime le moulin."},
    ]
    found = rows(bitext, pairs="pivot")
    assert pairs_of(found) == [("Where is the old mill?", "Where do I find the mill?")]
    assert "Nobody knows." in found[0].not_negatives
    boilerplate = [{"sentence1": f"The page {n} of it", "sentence2": "Page"} for n in range(21)]
    assert rows(bitext + boilerplate, pairs="pivot") == found


def test_much_overlap_is_told(rows, capsys):
    rows(["The mill is by the river. The mill is by the river now."], pairs="neighbours")
    assert "learn to compare strings" in capsys.readouterr().err
    places = "The mill is by the river. The road goes to the town. A baker sells bread at dawn. "
    rows(
        [places + "Old boats lie in the harbour. Nobody knows where the cat is."], pairs="position"
    )
    told = capsys.readouterr().err
    assert "5 rows (position)" in told
    assert "their words" not in told  # both texts are one, and the label counts
    assert shared_words("a b c", "B c d") == 0.5


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"window": 2}, "window means something beside pairs only"),
        (
            {"pairs": "crops", "window": 2},
            "window means nothing to pairs: crops; it is for neighbours",
        ),
    ],
)
def test_a_key_without_a_meaning_is_refused(settings, mistake):
    with pytest.raises(ValueError, match=mistake):
        SourceConfig(path="a.jsonl", **settings)


def test_sources_without_pairs_keep_their_fingerprint(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "q", "positive": "p"}\n', "utf-8")
    found = open_source(SourceConfig(path=str(path))).fingerprint
    assert found.startswith("139d0c7a097c1b81")  # of the version before sources made pairs


def test_every_text_file_of_a_glob_is_read(tmp_path):
    for name in "ab":
        text = " ".join(f"{one} Of {name} it is told." for one in SENTENCES[:2])
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    config = SourceConfig(path=str(tmp_path / "*.txt"), pairs="neighbours")
    source = open_source(config)
    queries = " ".join(one.query for one in source.examples())
    assert "Of a it" in queries
    assert "Of b it" in queries
    (tmp_path / "b.txt").write_text(DOCUMENT, "utf-8")
    assert open_source(config).fingerprint != source.fingerprint
