"""Workflow: a model loses the words that a corpus does not need, and the vectors of its texts stay as they were."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import refuse_existing
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.edits.prune_vocabulary import check_prunable, prune_vocabulary
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.release.export import card_of, write_model
from embedtrain.types import TokenVectors
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts

AT_ONCE = 256
"""Texts tokenised at once."""
ENCODED = 200
"""Texts whose vectors are compared."""
MAX_DIFFERENCE = 1e-6
HELD_OUT = 10
"""One text in so many tells what texts that were not counted will meet."""
NOTE = """

## A smaller vocabulary

Of {before:,} entries of the vocabulary those {after:,} stayed that {texts:,} texts need, with every character, byte and special token.
Texts of such words have the vectors of the model this was made of; other words are cut into finer pieces.
"""

Tokens = list[list[int]]


@dataclass(frozen=True)
class Pruned:
    """What came of it."""

    before: int
    """Entries of the vocabulary."""
    after: int
    bytes_before: int
    """Of all weights."""
    bytes_after: int
    texts: int
    differing: int
    """Texts of the corpus that are cut otherwise than before: none, unless rare entries were dropped."""
    missing: float
    """Share of the tokens of a tenth of the texts that the other nine tenths do not use."""
    difference: float
    """The largest of a coordinate, over texts that are cut as before."""


@owns("output")
def prune(
    model: str,
    corpora: Sequence[Path],
    output: Path,
    *,
    column: str | None = None,
    min_count: int = 1,
) -> Pruned:
    """Write a model whose vocabulary holds what the texts of files need.

    Nothing is believed: every text is tokenised by both, and the vectors of 200 are compared.

    Args:
        model: A dense or late-interaction model: a folder or a Hub id.
        corpora: Files as ``embedtrain encode`` reads them; give queries as well as documents.
        output: Folder to write; must not exist.
        column: Key of the text, where the files are tables.
        min_count: Drop entries that all texts together use more seldom.

    Raises:
        UserError: If a file holds no text, the model's vectors hang on words, or a vector differs.
    """
    refuse_existing(output)
    encoder = load_encoder(model)
    check_prunable(encoder)
    old, prompts, before = encoder.tokenizer, _prompts(encoder), _num_bytes(encoder)
    rows = max(len(old), int(encoder.backbone.config.vocab_size))
    counts, texts, missing = _count(old, _read(corpora, column), prompts, rows)
    sample = list(islice(_read(corpora, column), ENCODED))
    vectors = _vectors(encoder, sample)
    kept = prune_vocabulary(encoder, np.flatnonzero(counts >= min_count).tolist())
    differing = _compare(old, encoder.tokenizer, kept, _read(corpora, column), prompts, texts)
    if differing and min_count == 1:
        problem = f"cuts {differing:,} texts otherwise without the entries that none of them uses"
        raise UserError(model, problem, cure="Please report this with the tokenizer.json")
    changed = _differ(old, encoder.tokenizer, kept, sample, prompts)
    same = [place for place, differs in enumerate(changed) if not differs]
    difference = _largest_difference(
        [vectors[place] for place in same], _vectors(encoder, [sample[place] for place in same])
    )
    if difference > MAX_DIFFERENCE:
        raise UserError(model, "gives other vectors", got=difference, cure="Please report this")
    card = card_of(Path(model))
    note = NOTE.format(before=len(old), after=len(kept), texts=texts)
    write_model(encoder, output, card=card and card.rstrip() + note)
    sizes = (before, _num_bytes(encoder))
    return Pruned(len(old), len(kept), *sizes, texts, differing, missing, difference)


def _read(corpora: Sequence[Path], column: str | None) -> Iterator[str]:
    for path in corpora:
        yield from read_texts(path, column, DOCUMENT_COLUMNS)


def _prompts(model: TextEncoder) -> list[str]:
    """Return all that may stand before a text: prompts have words that no text has."""
    contract = model.contract
    tasks = getattr(contract, "instructions", {}).values()
    found = [contract.query_prompt, contract.document_prompt]
    for task in tasks:
        found += [task.query, task.document]
    return list(dict.fromkeys(found))


def _tokenise(tokenizer: Any, texts: Sequence[str], prompts: Sequence[str]) -> Tokens:  # noqa: ANN401 - transformers is untyped
    """Return the ids of each text behind each prompt, whole: a later model may read more of it than this one."""
    if not texts:
        return []
    behind = [prompt + text for text in texts for prompt in prompts]
    found: Tokens = tokenizer(behind, truncation=False, padding=False, verbose=False)["input_ids"]
    return found


def _count(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    texts: Iterable[str],
    prompts: Sequence[str],
    rows: int,
) -> tuple[Int64[np.ndarray, " entries"], int, float]:
    """Return how often each entry occurs, the number of texts, and which share of a tenth's tokens the rest lacks."""
    held, rest, number = np.zeros(rows, np.int64), np.zeros(rows, np.int64), 0
    with progress_bar("Counting tokens", None) as advance:
        for block in _blocks(texts):
            for into, part in ((held, block[::HELD_OUT]), (rest, _others(block))):
                ids = [entry for text in _tokenise(tokenizer, part, prompts) for entry in text]
                np.add(into, np.bincount(np.array(ids, np.int64), minlength=rows), out=into)
            number += len(block)
            advance(len(block))
    return held + rest, number, float(held[rest == 0].sum() / max(1, held.sum()))


def _others(block: Sequence[str]) -> list[str]:
    return [text for place, text in enumerate(block) if place % HELD_OUT]


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(texts)
    while block := list(islice(waiting, AT_ONCE)):
        yield block


def _compare(
    old: Any,  # noqa: ANN401 - transformers is untyped
    new: Any,  # noqa: ANN401
    kept: Sequence[int],
    texts: Iterable[str],
    prompts: Sequence[str],
    total: int,
) -> int:
    """Count the texts that the new tokenizer cuts otherwise than the old one."""
    with progress_bar("Tokenising by both", total) as advance:
        found = 0
        for block in _blocks(texts):
            found += sum(_differ(old, new, kept, block, prompts))
            advance(len(block))
    return found


def _differ(
    old: Any,  # noqa: ANN401 - transformers is untyped
    new: Any,  # noqa: ANN401
    kept: Sequence[int],
    texts: Sequence[str],
    prompts: Sequence[str],
) -> list[bool]:
    """Say of each text whether the new tokenizer cuts it otherwise, behind any of the prompts."""
    theirs = _tokenise(new, texts, prompts)
    different = [
        one != [kept[entry] for entry in other]
        for one, other in zip(_tokenise(old, texts, prompts), theirs, strict=True)
    ]
    step = len(prompts)
    return [any(different[start : start + step]) for start in range(0, len(different), step)]


def _vectors(model: TextEncoder, texts: Sequence[str]) -> list[Float32[np.ndarray, "_ dim"]]:
    """Return the vectors of each text."""
    found = encode_texts(model, texts, "document", precision="fp32")
    if isinstance(found, TokenVectors):
        return np.split(found.values, np.cumsum(found.lengths)[:-1])
    assert isinstance(found, np.ndarray)
    return list(found[:, None])


def _largest_difference(
    before: Sequence[Float32[np.ndarray, "_ dim"]],
    after: Sequence[Float32[np.ndarray, "_ dim"]],
) -> float:
    differences = [float(abs(one - other).max()) for one, other in zip(before, after, strict=True)]
    return max(differences, default=0.0)


def _num_bytes(model: TextEncoder) -> int:
    return sum(weight.nbytes for weight in model.state_dict().values())
