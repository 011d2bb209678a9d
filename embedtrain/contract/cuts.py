"""Where a text can be cut before it is tokenised, so that no token differs: the proof for each tokenizer.

A *boundary* is a single space between a letter, digit or sign and a letter or digit. A tokenizer is a chain of
parts: added tokens, normalizers, pre-tokenizers, a model. What the parts are tells what holds at a boundary:

- ``HEAD``: the tokens of what stands before it are the first tokens of the whole text.
- ``PIECES``: besides, those of the rest, space included, follow unchanged.

A part that is not known here proves ``NOTHING``; so does one that looks across boundaries.
"""

import json
import re
from enum import IntEnum
from typing import Any

LETTERS = "0-9A-Za-zÀ-ÖØ-öø-ňŊ-ſΈ-ΊΌΎ-ΡΣ-ώЀ-џ"
"""Digits, and letters whose every normal form begins and ends with a letter or its own accents."""
BEFORE, BEHIND = f"!-~{LETTERS}", LETTERS
BOUNDARY = re.compile(f"(?<=[{BEFORE}]) (?=[{BEHIND}])")
ENDING = re.compile(f"[{BEFORE}]")
PLAIN = re.compile(f"[{BEHIND}](?:[^ ]*[{BEFORE}])?")
"""What begins behind a boundary and ends before one, without a space."""
SPACES = {" ", "▁", "Ġ"}
"""A space, and what normalizers put in its place."""
ACROSS = re.compile(r"[^\s▁Ġ][\s▁Ġ]")
"""What an added token or one of a vocabulary holds that may reach across a boundary."""

Part = dict[str, Any]


def ends_well(piece: str) -> bool:
    """Whether a piece can stand before a boundary."""
    return ENDING.match(piece, len(piece) - 1) is not None if piece else False


class Proof(IntEnum):
    """What is proved of a tokenizer's boundaries."""

    NOTHING = 0
    HEAD = 1
    PIECES = 2


LETTER_BY_LETTER = (
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "StripAccents",
    "Nmt",
)
"""These look at single characters, or at a letter and its accents."""
NORMALIZERS = {
    **dict.fromkeys(LETTER_BY_LETTER, Proof.PIECES),
    "Precompiled": Proof.PIECES,  # looks at graphemes, and each side of a boundary is one
    "ByteLevel": Proof.PIECES,
    # What these do at the start of a text they would do at the start of a piece.
    "Prepend": Proof.HEAD,
    "Strip": Proof.HEAD,
}
RUNS = {" {2,}", r"\s{2,}", r"\s+", " +", r"\n+"}
"""Expressions to replace that match white space only: of a boundary its one space, or nothing."""
SPLITTING = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
LOCAL = {"Punctuation", "Digits"}
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EXPRESSIONS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(MODERN.replace("NUMBER", number) for number in (r"\p{N}", r"\p{N}{1,3}", r"\p{N}+")),
}
"""Those of GPT-2, and of Qwen and Llama 3: the space of a boundary begins a match or is one."""


def prove(serialised: str) -> Proof:
    """Return what is proved of a tokenizer.

    Args:
        serialised: Its JSON, as the tokenizers library writes it.
    """
    state = json.loads(serialised)
    if any(_reaches_across(token) for token in state["added_tokens"]):
        return Proof.NOTHING
    proof, space = _of_normalizer(state["normalizer"], " ")
    if proof is Proof.NOTHING:
        return proof
    local, splits = _of_pre_tokenizer(state["pre_tokenizer"], space)
    model = state["model"]
    if not local or model.get("dropout"):
        return Proof.NOTHING
    if splits or _keeps_apart(model, space):
        return proof
    return Proof.NOTHING


def longest_run(serialised: str) -> int | None:
    """Return how many letters and digits of a longer run suffice at each of its ends; None if all are needed.

    WordPiece gives a word of more characters than its limit one token, however long it is.
    """
    state = json.loads(serialised)
    model, pre_tokenizer = state["model"], state["pre_tokenizer"] or {}
    added = [token["content"] for token in state["added_tokens"]]
    if (
        model["type"] != "WordPiece"
        or pre_tokenizer.get("type") not in SPLITTING
        or not _keeps_letters(state["normalizer"])
        or any(re.fullmatch("[0-9A-Za-z]+", content) for content in added)
    ):
        return None
    # An added token may take the first or the last letters of a run.
    return int(model["max_input_chars_per_word"]) + 1 + max(map(len, added), default=0)


def _keeps_letters(normalizer: Part | None) -> bool:
    """Whether each letter of English stays one character."""
    if normalizer is None:
        return True
    if normalizer["type"] == "Sequence":
        return all(map(_keeps_letters, normalizer["normalizers"]))
    return normalizer["type"] in LETTER_BY_LETTER


def _reaches_across(token: Part) -> bool:
    """Whether an added token may hold a boundary, or take away the space of one."""
    content = token["content"]
    takes_left = token["lstrip"] and re.match(f"[{BEHIND}]", content)
    takes_right = token["rstrip"] and re.search(f"[{BEFORE}]\\Z", content)
    return bool(not content or ACROSS.search(content) or takes_left or takes_right)


def _of_normalizer(part: Part | None, space: str) -> tuple[Proof, str]:
    """Return what a normalizer leaves provable, and what it makes of a boundary's space."""
    if part is None:
        return Proof.PIECES, space
    if part["type"] == "Sequence":
        proof = Proof.PIECES
        for one in part["normalizers"]:
            found, space = _of_normalizer(one, space)
            proof = min(proof, found)
        return proof, space
    if part["type"] == "Replace":
        return _of_replacement(part, space)
    proof = NORMALIZERS.get(part["type"], Proof.NOTHING)
    return proof, "Ġ" if part["type"] == "ByteLevel" else space


def _of_replacement(part: Part, space: str) -> tuple[Proof, str]:
    wanted, content = part["pattern"].get("String"), part["content"]
    if part["pattern"].get("Regex") in RUNS and content in (" ", ""):
        # A run of line breaks is no boundary; a boundary's own space must stay one.
        kept = content == " " or "{2,}" in part["pattern"]["Regex"]
        return (Proof.PIECES if kept else Proof.NOTHING), space
    if wanted == space:
        return (Proof.PIECES, content) if content in SPACES else (Proof.NOTHING, space)
    harmless = wanted and not SPACES & set(wanted) and not SPACES & set(content)
    return (Proof.PIECES if harmless and content else Proof.NOTHING), space


def _of_pre_tokenizer(part: Part | None, space: str) -> tuple[bool, bool]:
    """Return whether a pre-tokenizer looks at no more than a boundary, and whether it splits there."""
    if part is None:
        return True, False
    kind = part["type"]
    if kind == "Sequence":
        found = [_of_pre_tokenizer(one, space) for one in part["pretokenizers"]]
        return all(local for local, _ in found), any(splits for _, splits in found)
    if kind in SPLITTING:
        return True, space == " "
    if kind in LOCAL:
        return True, False
    if kind == "ByteLevel":
        return True, part["use_regex"] and space == " "
    if kind == "Metaspace":
        marks = space in (" ", part["replacement"])
        return marks, marks and part.get("split", True)
    return _of_split(part, space) if kind == "Split" else (False, False)


def _of_split(part: Part, space: str) -> tuple[bool, bool]:
    pattern, behavior = part["pattern"], part["behavior"]
    if pattern.get("String") == " " and not part["invert"]:
        return (True, False) if space != " " else (behavior != "MergedWithPrevious", True)
    known = pattern.get("Regex") in EXPRESSIONS and space == " "
    # The expression matches everything, so it does not matter which of both is kept.
    whole = (behavior == "Isolated") or (behavior == "Removed" and part["invert"])
    return known and whole, known and whole


def _keeps_apart(model: Part, space: str) -> bool:
    """Whether no token of a vocabulary has a space behind something else: merges end at each boundary."""
    vocabulary = model.get("vocab", {})
    names = [entry[0] for entry in vocabulary] if model["type"] == "Unigram" else vocabulary
    if model["type"] not in ("BPE", "Unigram") or space not in names or model.get("ignore_merges"):
        return False
    return not any(ACROSS.search(name) for name in names)
