"""Words of queries and texts, and the language that they are in, without a model."""

import re
from functools import lru_cache

MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff\u0e30-\u0e4e\u0f71-\u0fbc"
"""Signs that belong to the letter before them: accents, Hebrew points, vowels of the scripts of India, Thailand, Tibet."""
WORD = re.compile(rf"\w[\w{MARKS}\u200c\u200d]*")
SENTENCE_END = re.compile(r"[.!?…][)\]\"'»”’]*(?=\s)|[。！？](?=.)|\n(?=\s*\n)", re.DOTALL)  # noqa: RUF001
"""Where a sentence or a paragraph ends."""
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "zh": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
}
"""Languages known by their script, and two scripts of many; Japanese before Chinese, with which it shares characters."""
LETTERS = {
    "cyrillic": {
        "ru": re.compile(r"[\u044b\u044d\u0451]"),
        "uk": re.compile(r"[\u0456\u0457\u0454\u0491]"),
        "": re.compile(r"[\u0450\u0452\u0453\u0455\u0458-\u0490\u0492-\u04ff]"),
        "bg": re.compile(r"\u044a"),
    },
    "arabic": {
        "fa": re.compile(r"[\u067e\u0686\u0698\u06af\u06a9\u06cc]"),
        "": re.compile(
            r"[\u0679\u0688\u0691\u06ba\u06be\u06c1\u06d2\u0681\u0693\u06ab\u06d0\u06d5]"
        ),
        "ar": re.compile(r"[\u0629\u0649\u064a\u0643\u0623\u0625]"),
    },
}
"""Letters that one language of a script has and the others lack; those of the empty name tell of another language."""
LETTER_SHARE = 0.01
"""Of a text's letters that such letters must be, if it is long."""
FOREIGN = re.compile(
    r"[\u0101-\u0107\u010d-\u0130\u0132-\u0151\u0155-\u017e\u0180-\u024f\u00e5\u00e6\u00f8\u00f0\u00fe\u00fd]"
)
"""Small letters of Latin script that none of the languages known by stop words has: Polish, Czech, Danish and others do."""
FEWEST_STOP_WORDS = 0.15
"""Share of a text's words that are stop words of its language; those that it shares with another one are fewer."""
LEAD = 1.5
"""How many times as many as of any other language."""
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
FEWEST_HITS = 2
"""Different stop words that a text must have of a language."""
KANA_SHARE = 0.05

STOP_WORDS = {
    "en": "the of and to in is that for it with as was on be by are this which or from at an not have has were but "
    "what how when where why who does do can i you we my your their its these than if will would should could",
    "de": "der die das und ist nicht ein eine einer eines mit von zu den dem des im auf für sich wird werden auch "
    "als wie was wenn oder aus bei nach kann man ich sie es sind war warum welche wer wo haben hat zum zur",
    "fr": "le la les de des du et est un une dans pour que qui sur pas par avec au aux ce cette sont il elle ne se "
    "plus ou comment quoi pourquoi quel quelle je nous vous mon votre leur été être avoir",
    "es": "el la los las de del y es un una en para que por con no se su al lo como más pero sus este esta son "
    "cómo qué cuál cuándo dónde quién yo mi está ser tiene hay",
    "it": "il lo la i gli le di del della dei e è un una in per che con non si da al alla come più sono questo "
    "questa cosa quale quando dove perché chi io mio essere ha nel nella",
    "pt": "o a os as de do da dos das e é um uma em para que por com não se no na ao como mais mas são este esta "
    "qual quando onde quem eu meu ser tem está pelo pela",
    "nl": "de het een en van is in op te dat die niet met voor aan er zijn als ook door maar om bij wat hoe "
    "waarom wanneer waar wie ik je mijn kan worden wordt naar uit dit deze",
}
SETS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
EVERY_STOP_WORD = frozenset().union(*SETS.values())


@lru_cache(maxsize=2**16)
def words_of(text: str) -> tuple[str, ...]:
    """Return the words in lower case; of scripts without blanks each character is one."""
    return tuple(
        part
        for word in WORD.findall(text.lower())
        for part in (CJK.findall(word) if CJK.search(word) else (word,))
    )


def content_words(text: str) -> frozenset[str]:
    """Return the different words that are no stop words of any language known here."""
    return frozenset(word for word in words_of(text) if word not in EVERY_STOP_WORD)


def num_words(text: str) -> int:
    """Count words; two characters are one in a script without blanks."""
    characters = len(CJK.findall(text))
    return len(WORD.findall(CJK.sub(" ", text))) + -(-characters // 2)


def language_of(text: str) -> str | None:
    """Return the ISO code of the language that a text is in, or None where that is not clear.

    Knows en, de, fr, es, it, pt and nl by their stop words, ja, zh, ko, el, he, hi and th by their script, and ru, uk,
    bg, ar and fa by letters that are theirs alone.
    """
    counts = {name: len(script.findall(text)) for name, script in SCRIPTS.items()}
    latin = len(LATIN.findall(text))
    name, most = max(counts.items(), key=lambda item: item[1])
    if most > latin or (name in ("zh", "ja", "ko") and 2 * most > latin):
        if name in LETTERS:
            return _by_letters(text.lower(), LETTERS[name], most)
        han = counts["zh"] + counts["ja"]
        return "ja" if name in ("zh", "ja") and counts["ja"] > KANA_SHARE * han else name
    if len(FOREIGN.findall(text.lower())) > LETTER_SHARE * latin:
        return None
    words = WORD.findall(text.lower())
    hits = {one: sum(word in stop for word in words) for one, stop in SETS.items()}
    best, second = sorted(hits.items(), key=lambda item: -item[1])[:2]
    needed = max(FEWEST_STOP_WORDS * len(words), LEAD * second[1])
    several = len(SETS[best[0]] & {*words}) >= FEWEST_HITS
    return best[0] if several and best[1] >= needed else None


def _by_letters(text: str, letters: dict[str, "re.Pattern[str]"], size: int) -> str | None:
    """Return the language whose own letters stand in a text, and nearly none of another one's."""
    counts = {one: len(found.findall(text)) for one, found in letters.items()}
    best = next((one for one, count in counts.items() if count > LETTER_SHARE * size), "")
    others = sum(count for one, count in counts.items() if one not in (best, "bg", "ar"))
    return best if best and others <= LETTER_SHARE * size else None


def longest_run(query: tuple[str, ...], text: tuple[str, ...]) -> int:
    """Return how many words in a row both have."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(text):
        places.setdefault(word, []).append(place)
    longest, before = 0, {}  # type: int, dict[int, int]
    for word in query:
        now = {place: before.get(place - 1, 0) + 1 for place in places.get(word, ())}
        longest = max(longest, *now.values()) if now else longest
        before = now
    return longest


def overlap(query: str, text: str) -> float:
    """Return the share of a query's content words that stand in a text, 0 to 1; 1 if it has none."""
    wanted = content_words(query)
    return len(wanted & set(words_of(text))) / len(wanted) if wanted else 1.0


def shared_words(left: str, right: str) -> float:
    """Return the different words that both texts have, as a share of those that one of them has; 0 to 1."""
    ours, theirs = set(words_of(left)), set(words_of(right))
    return len(ours & theirs) / max(len(ours | theirs), 1)
