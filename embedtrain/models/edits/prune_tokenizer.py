"""Take entries out of a ``tokenizer.json`` so that texts of the kept entries are cut into the same pieces as before.

What must stay for that, beside the entries that the texts use:

- *WordPiece* takes the longest entry that fits, and *Unigram* the sum of scores that is largest. Of fewer entries
  both choose the same, as long as their choice is among them. Scores are not changed, and the lowest one stays,
  since that of unknown characters hangs on it.
- *BPE* merges pairs in the order of its list. It needs every entry on the way to a kept one, and those merges alone
  whose two parts and result are kept.

Single characters, bytes and special tokens stay everywhere, so that no text becomes unknown: words that were taken
out are cut finer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from embedtrain.errors import UserError

Content = dict[str, Any]
"""A ``tokenizer.json``, or a part of it."""


def entries_of(content: Content) -> dict[str, int]:
    """Return the ids of all entries, added tokens included, by their strings."""
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        entries = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    else:
        entries = dict(vocabulary)
    return entries | {token["content"]: token["id"] for token in content["added_tokens"]}


def close_over(content: Content, used: Iterable[int]) -> list[int]:
    """Return the ids that must stay so that texts which use ``used`` are cut as before, in their order.

    Raises:
        UserError: If the tokenizer is of a kind that is not known.
    """
    model, entries = content["model"], entries_of(content)
    kind = model.get("type")
    if kind not in BASES:
        raise UserError(
            "tokenizer.json", "is of a kind whose vocabulary cannot be cut", got=kind,
            cure=f"Known are {', '.join(BASES)}",
        )  # fmt: skip
    kept = set(used) | {token["id"] for token in content["added_tokens"]}
    unknown = model.get("unk_token")
    if unknown in entries:
        kept.add(entries[unknown])
    kept |= BASES[kind](model, entries) | _put_around(content["post_processor"])
    if kind == "BPE":
        kept |= _ways(model, entries, kept)
    return sorted(kept)


def prune_tokenizer(content: Content, kept: list[int]) -> Content:
    """Return a ``tokenizer.json`` of the entries ``kept``, numbered anew in their order."""
    places = {old: new for new, old in enumerate(kept)}
    return {
        **content,
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, "id": places[token["id"]]} for token in content["added_tokens"]],
        "post_processor": _renumbered(content["post_processor"], places.__getitem__),
        "model": _pruned_model(content["model"], places),
    }


def _pruned_model(model: Content, places: Mapping[int, int]) -> Content:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        rows = [row for number, row in enumerate(vocabulary) if number in places]
        unknown = model.get("unk_id")
        return {**model, "vocab": rows, "unk_id": None if unknown is None else places[unknown]}
    pruned = {**model, "vocab": {k: places[v] for k, v in vocabulary.items() if v in places}}
    if "merges" in model:
        join, left = _joining(model), pruned["vocab"]
        pruned["merges"] = [
            merge
            for merge in model["merges"]
            if all(part in left for part in (*_parts(merge), join(*_parts(merge))))
        ]
    return pruned


def _put_around(processor: Content | None) -> set[int]:
    """Return the ids that a post-processor puts around texts."""
    found = set[int]()

    def noted(number: int) -> int:
        found.add(number)
        return number

    _renumbered(processor, noted)
    return found


def _renumbered(processor: Content | None, place: Callable[[int], int]) -> Content | None:
    """Return a post-processor whose special tokens have their new ids."""
    if processor is None:
        return None
    if processor["type"] == "Sequence":
        parts = [_renumbered(part, place) for part in processor["processors"]]
        return {**processor, "processors": parts}
    changed = dict(processor)
    for key in ("sep", "cls"):  # of BERT and RoBERTa: a token and its id
        if key in processor:
            changed[key] = [processor[key][0], place(processor[key][1])]
    if processor["type"] == "TemplateProcessing":
        changed["special_tokens"] = {
            name: {**token, "ids": [place(number) for number in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    return changed


def _short_pieces(model: Content, entries: Mapping[str, int]) -> set[int]:
    """Return the entries of one character, whatever marks the start or end of words, and those of one byte."""
    prefix, suffix = (
        model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")
    )
    return {
        number
        for piece, number in entries.items()
        if len(piece.removeprefix(prefix).removesuffix(suffix)) <= 1 or _is_byte(piece)
    }


def _is_byte(piece: str) -> bool:
    return len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")


def _unigram_base(model: Content, entries: Mapping[str, int]) -> set[int]:
    scores = [score for _, score in model["vocab"]]
    unknown = model.get("unk_id")
    lowest = {min(range(len(scores)), key=scores.__getitem__)} if scores else set()
    return _short_pieces(model, entries) | lowest | ({unknown} if unknown is not None else set())


BASES: dict[str, Callable[[Content, Mapping[str, int]], set[int]]] = {
    "WordPiece": _short_pieces,
    "BPE": _short_pieces,
    "Unigram": _unigram_base,
    "WordLevel": lambda _model, _entries: set(),
}
"""What stays of each kind of tokenizer whatever the texts are."""


def _ways(model: Content, entries: Mapping[str, int], kept: set[int]) -> set[int]:
    """Return the entries from which merges make those that are kept, and from which those are made, and so on."""
    join, parents = _joining(model), defaultdict[int, set[int]](set)
    for merge in model["merges"]:
        parts = _parts(merge)
        parents[entries[join(*parts)]] |= {entries[part] for part in parts}
    found, waiting = set[int](), list(kept)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found and parent not in kept:
                found.add(parent)
                waiting.append(parent)
    return found


def _parts(merge: str | list[str]) -> tuple[str, str]:
    """Return the two parts of a merge; old files write them as one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _joining(model: Content) -> Callable[[str, str], str]:
    """Return how two parts become one entry: the mark of a word's inner pieces is written once."""
    prefix = model.get("continuing_subword_prefix") or ""
    return lambda left, right: left + right.removeprefix(prefix)
