"""What readers are known to do otherwise, each as a change of our own encoding.

A cause is named only where the change gives the reader's vectors. Each comes from reports of users or from the sources of
readers: prompts that nobody adds or two do, windows of the config in place of the folder's, pooling by another flag, tokens
at the end that are missing.
"""

from collections.abc import Iterator
from functools import partial

from embedtrain.contract.texts import Pooling
from embedtrain.verification.ours import Change, Ours
from embedtrain.verification.values import Mode

WINDOWS = (8, 16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)
"""Tokens that readers cut at."""
POOLINGS: dict[Pooling, str] = {
    "mean": "mean of all tokens",
    "cls": "first token",
    "last_token": "last token",
    "max": "maximum",
    "weighted_mean": "mean weighted by place",
}
ENDS = ("eos_token_id", "sep_token_id", "pad_token_id")
CHAT_ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>")
"""Last tokens of chats, which are not those of embedding models."""
CUTS = "window: cuts at "

ATTENTIONS = (
    Change("attention: causal, where tokens should see all others", attention="causal"),
    Change("attention: to all tokens, where it should be causal", attention="full"),
)


def changes_of(ours: Ours) -> list[Change]:
    """Return the changes that can be tried on a model."""
    if not ours.can_change:
        return []
    return [*_prompts(ours), *_poolings(ours), *_tokens(ours), *ATTENTIONS, *_windows(ours)]


def _prompts(ours: Ours) -> Iterator[Change]:
    contract = ours.contract
    query, document = contract.query_prompt, contract.document_prompt
    if query or document:
        yield Change("prompt missing", prompt=lambda _: "")
        yield Change("prompt twice", prompt=lambda mode: 2 * ours.prompt(mode))
    if query and document and query != document:
        swapped = {"query": document, "document": query, "plain": ""}
        yield Change("prompt of the other side", prompt=lambda mode: swapped[mode])
    for side, prompt in (("query", query), ("document", document)):
        if prompt:
            yield Change(f"a {side}'s prompt though none was asked for", prompt=partial(_unasked, ours, prompt))  # fmt: skip


def _unasked(ours: Ours, prompt: str, mode: Mode) -> str:
    return ours.prompt(mode) or prompt


def _poolings(ours: Ours) -> Iterator[Change]:
    for pooling, words in POOLINGS.items():
        if pooling != ours.contract.pooling:
            yield Change(f"pooling: {words}", pooling=pooling)
    if ours.contract.pooling == "mean":
        yield Change("pooling: mean without the special tokens", pooling="inner_mean")
    if ours.model.projection is not None:
        yield Change("the layer behind the pooling (Dense) is missing", without_projection=True)


def _windows(ours: Ours) -> Iterator[Change]:
    limits = {*WINDOWS, ours.most, ours.length("query"), ours.length("document")}
    for window in sorted(one for one in limits if one <= ours.most):
        yield Change(
            f"{CUTS}{window} tokens",
            ids=partial(_cut_at, ours, window),
            is_of_texts=True,
        )
    yield Change(
        "window: cuts without the last special token", ids=partial(_cut_raw, ours), is_of_texts=True
    )


def _cut_at(ours: Ours, window: int, whole: str, mode: Mode) -> list[int]:
    del mode
    return ours.cut(whole, window)


def _cut_raw(ours: Ours, whole: str, mode: Mode) -> list[int]:
    ids: list[int] = ours.tokenizer(whole, verbose=False)["input_ids"]
    return ids[: ours.length(mode)]


def _tokens(ours: Ours) -> Iterator[Change]:
    tokenizer = ours.tokenizer
    bare = partial(_without_special, ours)
    yield Change("special tokens missing", ids=bare)
    last = _last_special(ours)
    if last is not None:
        yield Change("last special token (EOS) missing", ids=partial(_without_last, ours))
    ends = {getattr(tokenizer, name) for name in ENDS}
    unknown = tokenizer.unk_token_id
    ends |= {tokenizer.convert_tokens_to_ids(word) for word in CHAT_ENDS}
    for number in sorted(ends - {None, last, unknown}):
        name = tokenizer.convert_ids_to_tokens(number)
        ended = partial(_other_last, ours, number)
        yield Change(f"last token is {name} and not the model's own", ids=ended)
    yield Change(
        "tokenizer: special tokens in texts are read as plain words",
        ids=partial(_split_special, ours),
        is_of_texts=True,
    )


def _last_special(ours: Ours) -> int | None:
    ids = ours.tokenizer("a")["input_ids"]
    plain = ours.tokenizer("a", add_special_tokens=False)["input_ids"]
    return None if not ids or ids[-1:] == plain[-1:] else int(ids[-1])


def _without_special(ours: Ours, whole: str, mode: Mode) -> list[int]:
    given = {"add_special_tokens": False, "truncation": True, "verbose": False}
    ids: list[int] = ours.tokenizer(whole, max_length=ours.length(mode), **given)["input_ids"]
    return ids


def _without_last(ours: Ours, whole: str, mode: Mode) -> list[int]:
    return ours.cut(whole, ours.length(mode))[:-1]


def _other_last(ours: Ours, number: int, whole: str, mode: Mode) -> list[int]:
    ids = ours.cut(whole, ours.length(mode))
    return [*(ids if _last_special(ours) is None else ids[:-1]), number]


def _split_special(ours: Ours, whole: str, mode: Mode) -> list[int]:
    given = {"truncation": True, "verbose": False, "split_special_tokens": True}
    ids: list[int] = ours.tokenizer(whole, max_length=ours.length(mode), **given)["input_ids"]
    return ids
