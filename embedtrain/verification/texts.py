"""The texts that readers are compared on: the user's, and some that tokenizers and windows are known to differ on."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from embedtrain.verification.values import Mode, Probe

PLAIN = (
    "split a list into chunks of equal size",
    "How do I read a file line by line?",
    "Opening hours of the town library, including Sundays and public holidays.",
    "The committee postponed its vote on the new harbour because two reports contradicted each other.",
    "Error 0x80070057: the parameter is incorrect (build 19045.3803)",
    "temperature sensor, 3.3 V, -40 to 125 degrees, I2C",
    "She sold the house in 1987 and never came back to the island.",
    "for i in range(10): print(i ** 2)",
)
"""Stands for the user's texts where there are none."""
HARD = (
    ("space", " "),
    ("one letter", "x"),
    ("long word", "a" * 300),
    ("Chinese", "東京都では今日も雨が降っている。"),
    ("Hangul", "서울은 대한민국의 수도이다"),
    ("Devanagari", "हिन्दी में एक वाक्य"),
    ("Arabic", "اللغة العربية جميلة"),
    ("Cyrillic", "Столица России — Москва"),
    ("accents", "nai\u0308ve cafe\u0301, Zu\u0308rich, Đặng"),
    ("emoji", "launch 🚀 went well 👩\u200d🔬🇨🇭"),
    ("NUL", "before\x00after"),
    ("zero-width space", "zero\u200bwidth"),
    ("special tokens", "[CLS] hello [SEP] world"),
    ("special tokens", "[MASK] [UNK] </s> <|endoftext|>"),
    ("line ends", "one\r\ntwo\r\n\r\nthree"),
    ("tabs", "a\tb\t\tc"),
    ("leading spaces", "   three spaces before"),
)
"""What is hard, and a text that is so."""
ODD = {"long word", "special tokens", "Chinese", "Hangul", "Devanagari", "Arabic", "accents", "emoji"}  # fmt: skip
ODD |= {"NUL", "zero-width space", "Cyrillic", "space"}
"""Kinds that a tokenizer of its own reads otherwise."""
OVER = "over the window"
EMPTY = "empty"
WORD = "word "
T = TypeVar("T")


def probes_of(
    queries: Sequence[str],
    documents: Sequence[str],
    modes: Sequence[Mode],
    length: Callable[[Mode], int],
    count: Callable[[str, Mode], int],
) -> list[Probe]:
    """Return all texts to compare: the user's queries, his documents, then others.

    Args:
        queries: Of the user; none for the built-in ones.
        documents: Of the user.
        modes: Those that differ for this model.
        length: Tokens that are kept in a mode.
        count: Tokens of a text in a mode, before any are cut off; 0 where it cannot be encoded.
    """
    asking: Mode = "query" if "query" in modes else "document"
    found = [Probe(text, asking) for text in queries or PLAIN]
    found += [Probe(text, "document") for text in documents or PLAIN]
    hard: list[Probe] = []
    for mode in modes:
        if mode == "plain":
            found += [Probe(text, mode) for text in PLAIN]
        hard += [Probe(text, mode, kind) for kind, text in (*HARD, (EMPTY, ""))]
        hard += _about_window(mode, length(mode), count)
    return [*found, *(one for one in hard if count(one.text, one.mode) > 0)]


def _about_window(mode: Mode, length: int, count: Callable[[str, Mode], int]) -> Iterator[Probe]:
    """Yield texts that are just within a window, just beyond it, and far beyond it."""
    around = count(WORD, mode) - (count(2 * WORD, mode) - count(WORD, mode))
    room = length - around
    for kind, words in (("window - 1", room - 1), ("window", room), (OVER, room + 1)):
        if words > 0:
            yield Probe((WORD * words).strip(), mode, kind)
    mixed = " ".join(PLAIN) + " "
    times = 4 * length // max(1, count(mixed, mode) - around) + 1
    yield Probe((mixed * times).strip(), mode, OVER)


def spread(items: Sequence[T], number: int) -> list[T]:
    """Return so many items at most, from the first on at equal distances."""
    step = max(1, len(items) // max(1, number))
    return list(items)[::step][:number]
