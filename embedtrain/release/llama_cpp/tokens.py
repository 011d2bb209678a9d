"""What becomes of a tokenizer in GGUF: llama.cpp has tokenizers of its own, which must give the same ids.

It lower-cases and strips accents for WordPiece whatever the file says, and cuts texts for byte-level BPE by one of the
expressions that it knows. Other tokenizers are refused. What still differs are texts that hold special tokens as words,
words of more than 100 letters, and combining marks of some scripts (Hangul, Devanagari).
"""

import json
from collections.abc import Iterator
from typing import Any

from embedtrain.errors import UserError
from embedtrain.models.edits.prune_tokenizer import Content, entries_of

Writer = Any
"""A ``gguf.GGUFWriter``, which is untyped."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as llama.cpp numbers them."""
SPACE = "▁"
"""Stands before the first piece of a word."""
BYTES = tuple(f"<0x{number:02X}>" for number in range(256))
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen cuts a text before its merges; llama.cpp calls it ``qwen2``."""


def write_tokens(writer: Writer, tokenizer: Any, rows: int) -> None:  # noqa: ANN401 - transformers is untyped
    """Write the entries of a tokenizer and the tokens around texts.

    Args:
        writer: Of the file.
        tokenizer: Of the model.
        rows: Of the table of words; those without an entry are named as unused.

    Raises:
        UserError: If llama.cpp would give texts other ids.
    """
    content: Content = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = content["model"]["type"]
    if kind == "WordPiece":
        _write_wordpiece(writer, tokenizer, content, rows)
    elif kind == "BPE" and (content["normalizer"] or {}).get("type") == "Replace":
        _write_unsplit(writer, tokenizer, content, rows)
    elif kind == "BPE":
        _write_bpe(writer, tokenizer, content, rows)
    else:
        raise _refused(f"a tokenizer of the kind {kind}")


def _write_wordpiece(writer: Writer, tokenizer: Any, content: Content, rows: int) -> None:  # noqa: ANN401
    normalizer = content["normalizer"] or {}
    strips = normalizer.get("strip_accents")
    if normalizer.get("type") != "BertNormalizer" or not normalizer["lowercase"] or strips is False:
        raise _refused("a tokenizer that keeps capitals or accents")
    if content["model"]["continuing_subword_prefix"] != "##":
        raise _refused("marks of inner pieces other than ##")
    if _around(tokenizer) != ([tokenizer.cls_token_id], [tokenizer.sep_token_id]):
        raise _refused("other tokens around texts than [CLS] and [SEP]")
    special = _special(content)
    words = [
        piece
        if piece in special
        else piece.removeprefix("##")
        if piece.startswith("##")
        else SPACE + piece
        for piece in _in_order(content, rows)
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types(_kinds(content, rows))
    writer.add_token_type_count(2)
    writer.add_bos_token_id(tokenizer.cls_token_id)
    writer.add_eos_token_id(tokenizer.sep_token_id)
    _write_other_special(writer, tokenizer)


def _write_bpe(writer: Writer, tokenizer: Any, content: Content, rows: int) -> None:  # noqa: ANN401
    if (content["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        raise _refused("a tokenizer that changes letters before it cuts")
    merges = content["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cuts(content))
    writer.add_token_list(_in_order(content, rows))
    writer.add_token_types(_kinds(content, rows))
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    _write_around(writer, tokenizer)


def _write_unsplit(writer: Writer, tokenizer: Any, content: Content, rows: int) -> None:  # noqa: ANN401
    """Write a tokenizer that merges over the whole text, as Gemma's; llama.cpp ranks pieces in place of merges."""
    normalizer, model = content["normalizer"], content["model"]
    cut = content["pre_tokenizer"] or {"type": "Split", "pattern": {"String": " "}}
    if (normalizer["pattern"], normalizer["content"]) != ({"String": " "}, SPACE):
        raise _refused("a tokenizer that changes letters before it cuts")
    if cut["type"] != "Split" or cut["pattern"] != {"String": " "}:
        raise _refused("a tokenizer that cuts texts before its merges in this way")
    names = entries_of(content)
    if not model["byte_fallback"] or not {*BYTES} <= {*names}:
        raise _refused("a tokenizer without bytes for unknown letters")
    merges = [tuple(one.split(" ") if isinstance(one, str) else one) for one in model["merges"]]
    known = {*merges}
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    pairs = (pair for piece in ranks for pair in _halves(piece))
    if any(pair not in known for pair in pairs if pair[0] in names and pair[1] in names):
        raise _refused("a tokenizer that does not merge all pairs that make a piece")
    pieces = _in_order(content, rows)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(ranks.get(piece, len(merges))) for piece in pieces])
    kinds = _kinds(content, rows)
    for name in BYTES:
        kinds[names[name]] = BYTE
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(False)
    _write_around(writer, tokenizer)


def _halves(piece: str) -> Iterator[tuple[str, str]]:
    return ((piece[:place], piece[place:]) for place in range(1, len(piece)))


def _write_around(writer: Writer, tokenizer: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Write the tokens before and behind texts, and others with a meaning."""
    before, after = _around(tokenizer)
    if len(before) > 1 or len(after) > 1:
        raise _refused("several tokens before or behind texts")
    writer.add_add_bos_token(bool(before))
    if before:
        writer.add_bos_token_id(before[0])
    # Not what a chat ends with: of some models that last token's state is the vector.
    ends = after or [tokenizer.eos_token_id]
    if ends[0] is not None:
        writer.add_eos_token_id(ends[0])
    writer.add_add_eos_token(bool(after))
    _write_other_special(writer, tokenizer)


def _cuts(content: Content) -> str:
    """Return what llama.cpp calls the way in which a tokenizer cuts texts before its merges."""
    whole = content["pre_tokenizer"] or {}
    parts = whole.get("pretokenizers", [whole])
    if any(part.get("add_prefix_space") for part in parts):
        raise _refused("a tokenizer that puts a space before texts")
    if QWEN in [part.get("pattern", {}).get("Regex") for part in parts]:
        return "qwen2"
    if [part.get("type") for part in parts] == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    raise _refused("a tokenizer that cuts texts otherwise than Qwen's and GPT-2's")


def _write_other_special(writer: Writer, tokenizer: Any) -> None:  # noqa: ANN401 - transformers is untyped
    for name, number in (
        ("sep", tokenizer.sep_token_id),
        ("pad", tokenizer.pad_token_id),
        ("unk", tokenizer.unk_token_id),
        ("mask", tokenizer.mask_token_id),
    ):
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)


def _in_order(content: Content, rows: int) -> list[str]:
    names = {number: piece for piece, number in entries_of(content).items()}
    return [names.get(number, f"[PAD{number}]") for number in range(rows)]


def _kinds(content: Content, rows: int) -> list[int]:
    known, special = entries_of(content), _special(content)
    kinds = [UNUSED] * rows
    for piece, number in known.items():
        kinds[number] = CONTROL if piece in special else NORMAL
    for token in content["added_tokens"]:
        if not token["special"]:
            kinds[token["id"]] = USER_DEFINED
    return kinds


def _special(content: Content) -> set[str]:
    return {token["content"] for token in content["added_tokens"] if token["special"]}


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:  # noqa: ANN401 - transformers is untyped
    """Return the ids that a tokenizer puts before and behind a text."""
    text = "a"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    start = next(place for place in range(len(whole)) if whole[place : place + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def _refused(what: str) -> UserError:
    return UserError("--gguf", f"has no place for {what}", cure="Use --onnx instead")
