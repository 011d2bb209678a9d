"""Filters that look at a query and its text alone: form, bleed, source words, copies, language, secrets.

Each says of a row whether it takes it. The others need all rows: :mod:`embedtrain.synthesis.duplicates`,
:mod:`embedtrain.synthesis.round_trip` and :mod:`embedtrain.synthesis.caps`.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

from embedtrain.data.words import content_words, language_of, longest_run, num_words, words_of
from embedtrain.synthesis.language_settings import MISLEADING
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import NearCopy, SynthesisConfig

Test = Callable[[Row], bool]
"""Whether a row is taken."""
WORDS = range(2, 41)
UNFINISHED = frozenset(("length", "empty", "failed", "content_filter"))
"""How what is no whole query ended; servers have many words for a good end."""
MARKUP = re.compile(r"</?[a-z][^<>]*>|```|^#+ |\*\*|\{\s*\"|^\s*[-*\u2022] ", re.IGNORECASE)
NUMBERED = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[a-z]\))\s", re.IGNORECASE)
CHATTER = re.compile(
    r"^\W*(?:query|question|frage|requ\u00eate|pregunta|domanda|pergunta|vraag|answer|passage|title|output|example)\s*\d*\s*:"
    r"|^\W*(?:sure|certainly|of course|okay|here (?:is|are)|here's|as an ai|i'm sorry|i am sorry|sorry|i cannot|i can't|"
    r"i can not|unfortunately|nat\u00fcrlich|gerne|hier (?:ist|sind)|es tut mir leid|entschuldigung|voici|bien s\u00fbr|"
    r"d\u00e9sol\u00e9|claro|aqu\u00ed (?:est\u00e1|tienes)|lo siento|certo|ecco|mi dispiace|desculpe|natuurlijk|hier is)\b"
    r"|^\W*(?:\u597d\u7684|\u5f53\u7136|\u4ee5\u4e0b\u662f|\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u95ee\u9898[:\uff1a]|\u67e5\u8be2[:\uff1a])",
    re.IGNORECASE,
)
"""How an answer begins that speaks to somebody, or names its own part."""
SOURCE_WORDS = {
    "en": r"\b(?:this|the|above|following|given|provided) (?:passage|document|article|study|figure|table|text|paper|excerpt|"
    r"abstract|paragraph|chunk|page|section)\b|\b(?:the|this) authors?\b|\b(?:the|as) above\b|\bmentioned\b|"
    r"\baccording to the (?:text|passage|document)\b",
    "de": r"\b(?:dies\w*|de[rsmn]|die|das|im|vom|obig\w*|folgend\w*) (?:text\w*|abschnitt\w*|dokument\w*|artikel\w*|studie|"
    r"abbildung|tabelle|passage)\b|\b(?:der|die|des) autor\w*\b|\boben\b|\berw\u00e4hnt\w*\b|\bgenannt\w*\b",
    "fr": r"\b(?:ce|cet|cette|le|la|l'|du) ?(?:texte|passage|document|article|\u00e9tude|figure|tableau)\b|\bl'auteure?\b|"
    r"\bci-dessus\b|\bmentionn\u00e9\w*\b",
    "es": r"\b(?:est[ea]|el|la|del) (?:texto|pasaje|documento|art\u00edculo|estudio|figura|tabla)\b|\b(?:el|la) autora?\b|"
    r"\barriba\b|\bmencionad\w*\b",
    "it": r"\b(?:quest[oa]|il|la|del|nel) (?:testo|passaggio|brano|documento|articolo|studio|figura|tabella)\b|\bl'autore\b|"
    r"\bsopra\b|\bmenzionat\w*\b|\bcitat[oaie]\b",
    "pt": r"\b(?:est[ea]|o|a|do|no) (?:texto|passagem|documento|artigo|estudo|figura|tabela)\b|\bo autor\b|\bacima\b|"
    r"\bmencionad\w*\b",
    "nl": r"\b(?:deze|dit|de|het) (?:tekst|passage|document|artikel|studie|figuur|tabel)\b|\bde auteur\b|\bhierboven\b|"
    r"\bgenoemd\w*\b",
    "ru": r"\u044d\u0442(?:\u043e\u0442|\u043e\u043c|\u043e\u0439|\u0430) (?:\u0442\u0435\u043a\u0441\u0442|\u0441\u0442\u0430\u0442\u044c|\u0434\u043e\u043a\u0443\u043c\u0435\u043d\u0442)|"
    r"\u0430\u0432\u0442\u043e\u0440|\u0443\u043f\u043e\u043c\u044f\u043d\u0443\u0442",
    "zh": r"(?:\u672c|\u8be5|\u8fd9\u7bc7|\u4e0a\u8ff0|\u6b64|\u8fd9\u6bb5)(?:\u6587\u7ae0|\u6587\u6863|\u6587\u6bb5|\u6587\u672c|\u7814\u7a76|\u6bb5\u843d|\u6587|\u8868|\u56fe)|\u4f5c\u8005|\u4e0a\u6587|\u63d0\u5230",
    "ja": r"(?:\u3053\u306e|\u672c|\u4e0a\u8a18\u306e)(?:\u6587\u7ae0|\u6587\u66f8|\u8a18\u4e8b|\u7814\u7a76|\u6587|\u8868|\u56f3)|\u8457\u8005|\u4e0a\u8ff0",
}
"""Words that point at the text instead of standing alone, by language."""
POINTS = {language: re.compile(words, re.IGNORECASE) for language, words in SOURCE_WORDS.items()}
BLEED = 0.6
"""Jaccard similarity of the content words of a query and of an example of the prompt."""
BLEED_IN_TEXT = 0.3
"""Share of the query's words in the text from which on it is the text's own."""
SENTENCES = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s*|\n")
SECRETS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # e-mail
    r"|(?<![\w.])\+?(?:\(\d{1,4}\)[ /-]?|\d{2,5}[ /-])(?:\d[ /-]?){6,}\d(?![\w.])"  # telephone
    r"|\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b"  # IBAN
    r"|\d{9,}"
    r"|\b(?:sk|pk|ghp|gho|xox[bap]|hf|AKIA|AIza|eyJ)[-_A-Za-z0-9]{16,}"
    r"|\b(?=[A-Za-z0-9+/_-]*\d)(?=[A-Za-z0-9+/_-]*[A-Z])(?=[A-Za-z0-9+/_-]*[a-z])[A-Za-z0-9+/_-]{32,}"
)


def form(row: Row) -> bool:
    """Take what is no query: too short or long, cut at the token limit, of several lines, markup, chatter."""
    query = row.candidate.query
    if row.candidate.finish in UNFINISHED or num_words(query) not in WORDS or "\n" in query:
        return True
    if row.by_rule:
        return False
    return bool(MARKUP.search(query) or NUMBERED.match(query) or CHATTER.match(query))


def bleed(row: Row, examples: Sequence[frozenset[str]]) -> bool:
    """Take a query that is an example of the prompt again, if the text does not speak of it."""
    words = content_words(row.candidate.query)
    if row.by_rule or not words:
        return False
    text = set(words_of(row.chunk.text))
    if len(words & text) >= BLEED_IN_TEXT * len(words):
        return False
    return any(len(words & one) >= BLEED * len(words | one) for one in examples if one)


def source_words(row: Row) -> bool:
    """Take a query that points at its text: "this document", "the author"."""
    if row.by_rule:
        return False
    query = row.candidate.query
    languages = {language_of(query), language_of(row.chunk.text), "en"}
    return any(POINTS[one].search(query) for one in languages if one in POINTS)


def copy(row: Row, limits: NearCopy) -> bool:
    """Take what is copied from the text.

    Rules copy by their nature: there it is enough that the words of the query do not stand in what is left of the
    text; crops and key phrases are exempt.
    """
    candidate = row.candidate
    if candidate.maker in ("crop", "keyphrases"):
        return False
    query = words_of(candidate.query)
    text = candidate.positive if row.by_rule else row.chunk.text
    run = longest_run(query, words_of(text))
    if run > limits.run:
        return True
    if row.by_rule or candidate.type == "keywords" or run <= limits.short_run:
        return False
    words = content_words(candidate.query)
    sentences = (set(words_of(one)) for one in SENTENCES.split(text))
    return any(len(words & one) > limits.containment * len(words) for one in sentences)


def language(row: Row, wanted: Callable[[Row], str | None]) -> bool:
    """Take a query that is clearly in another language than it should be."""
    if row.by_rule:
        return False
    found, expected = language_of(row.candidate.query), wanted(row)
    return found is not None and expected is not None and found != expected


def secrets(row: Row) -> bool:
    """Take a query with an e-mail address, telephone number, IBAN, long run of digits, or key."""
    return bool(SECRETS.search(row.candidate.query))


def set_aside(rows: Sequence[Row]) -> None:
    """Take descriptions that only almost fit: they are believed as negatives, not as queries."""
    for row in rows:
        if row.kept and row.candidate.type == MISLEADING:
            row.taken_by = MISLEADING


def text_language(row: Row) -> str | None:
    """Return the language that a row's query should be in: that of its text."""
    return language_of(row.chunk.text)


def text_tests(
    config: SynthesisConfig,
    examples: Sequence[str] = (),
    wanted: Callable[[Row], str | None] = text_language,
) -> dict[str, Test]:
    """Return these filters by name, in their order; ``examples`` are the queries that a prompt shows."""
    shown = [content_words(one) for one in examples]
    return {
        "form": form,
        "bleed": partial(bleed, examples=shown),
        "source_words": source_words,
        "copy": partial(copy, limits=config.near_copy),
        "language": partial(language, wanted=wanted),
        "secrets": secrets,
    }


def apply(rows: Sequence[Row], tests: dict[str, Test]) -> None:
    """Let each row be taken by the first test that does."""
    for row in rows:
        if row.kept:
            row.taken_by = next((name for name, test in tests.items() if test(row)), "")
