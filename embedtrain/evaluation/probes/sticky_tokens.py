r"""Sticky tokens: repeated into a text, they pull it towards all other texts.

Tokens are inserted $n = 1 \dots 8$ times in front of, behind and at random places of one text of a pair that is
little alike. With $\delta$ the change of the cosine distance, averaged over pairs and n and weighted .35, .35
and .30 by place,

$$\mathrm{score} = \frac{\overline{\max(-\delta, 0)} + .1\,\overline{[\delta < 0]}}
    {\overline{\max(\delta, 0)} + .05\,\overline{[\delta > 0]} + .01}.$$

All tokens are screened with $n = 8$ in front of two texts, and the best fifth of them in front of and behind all five (of
1,500 tokens of MiniLM this fifth held all of the 2 % that are best on five); the best 2 % get their score, and the best of
these are verified on further pairs: the share of pairs whose mean distance falls, weighted 4/11, 4/11 and 3/11.

Source: Chen et al. (2025), Sticky tokens, https://arxiv.org/abs/2507.18171; the term of the score that
compares the tokens themselves is left out, and the screening is ours. Tokens are inserted as ids.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from embedtrain.contract.texts import framing_of
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.probes.token_trial import (
    TEXTS_AT_ONCE,
    UNLIKE_PAIRS,
    Ids,
    Pair,
    Trial,
    usable_tokens,
)
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar

PLACES = ("front", "behind", "random")
SCORE_WEIGHTS = (0.35, 0.35, 0.30)
SHARE_WEIGHTS = (4 / 11, 4 / 11, 3 / 11)
REPEATS = tuple(range(1, 9))
KEPT_RATIO = 0.2
"""Share of all tokens that is screened on all pairs; the others stand in front of the first and the last alone."""
SHORTLIST_RATIO = 0.02
"""Share of all tokens that gets its score."""
VERIFIED = 10
"""Tokens that are verified and shown."""
STRONG, WEAK = 1 - 1 / (3 * np.e), 0.816
"""Shares of pairs from which on a token counts as sticky."""
Screened = Float64[np.ndarray, "pairs places repeats"]
Changes = Float64[np.ndarray, "tokens pairs places repeats"]


class StickyTokens(Probe):
    """Find the tokens that make unlike texts alike; ``size`` sentences are drawn from the data.

    Each token of the vocabulary costs two short texts, each of the best fifth ten, and each of the
    best 2 % 120. A late-interaction model is probed by its MaxSim per vector, both ways.
    """

    name: ClassVar[str] = "sticky-tokens"
    needs_data: ClassVar[str] = "a .jsonl file with a column text, or with sentence1 and sentence2"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Screen the vocabulary, score the best, verify the best of these."""
        assert wish.data is not None
        refuse_interaction(subject.model, cls.name)
        if framing_of(subject.model.contract) is not None:
            raise UserError(
                cls.name, "does not go with a model whose texts have a suffix or several frames"
            )
        rng = np.random.Generator(np.random.PCG64(wish.seed))
        trial = Trial(subject.model, read_sentences(wish.data, subject.model, wish.size), rng)
        tokens = usable_tokens(subject.model)
        scores = rank_tokens(trial, tokens)
        best = sorted(scores, key=lambda token: -scores[token])[:VERIFIED]
        pairs = trial.random_pairs(wish.size)
        shares = []
        with progress_bar(f"Verifying tokens on {len(pairs)} pairs", len(best)) as advance:
            for token in best:
                shares.append(verified_share(trial, token, pairs))
                advance(1)
        strong, weak = sum(s > STRONG for s in shares), sum(WEAK < s <= STRONG for s in shares)
        tried = f"{len(tokens)} tokens"
        findings = [
            Finding(tried, "strongly_sticky", float(strong)),
            Finding(tried, "weakly_sticky", float(weak)),
        ]
        for rank, (token, share) in enumerate(zip(best, shares, strict=True), 1):
            setting = f"{rank}. {subject.model.tokenizer.convert_ids_to_tokens(int(token))!r}"
            findings.append(Finding(setting, "score", scores[token]))
            findings.append(Finding(setting, "share_of_pairs_drawn_together", share))
        return findings


def verified_share(trial: Trial, token: int, pairs: list[Pair]) -> float:
    """Return the weighted share of pairs that a token draws together."""
    falls = trial.changes([token], pairs, PLACES, REPEATS)[0].mean(axis=2) < 0
    return float(falls.mean(axis=0) @ np.asarray(SHARE_WEIGHTS))


def rank_tokens(trial: Trial, tokens: list[int]) -> dict[int, float]:
    """Screen all tokens and return the scores of the best of them; nothing is encoded twice."""
    pairs = trial.unlike_pairs()
    few, others = pairs[:: len(pairs) - 1], pairs[1:-1]
    front = screen(trial, tokens, few, PLACES[:1])
    kept = best_of(front, math.ceil(KEPT_RATIO * len(tokens)))
    some = [tokens[row] for row in kept]
    first = np.concatenate([front[kept], screen(trial, some, few, PLACES[1:2])], axis=2)
    changes = np.concatenate([first, screen(trial, some, others, PLACES[:2])], axis=1)
    scores: dict[int, float] = {}
    best = best_of(changes, round(SHORTLIST_RATIO * len(tokens)))
    with progress_bar("Scoring the shortlist", len(best)) as advance:
        for row in best:
            scores[some[row]] = score_token(trial, some[row], [*few, *others], changes[row])
            advance(1)
    return scores


def score_token(trial: Trial, token: int, pairs: list[Pair], known: Screened) -> float:
    """Return the score of a token, of which the changes of all repeats in front and behind are known."""
    ends = trial.changes([token], pairs, PLACES[:2], REPEATS[:-1])
    random = trial.changes([token], pairs, PLACES[2:], REPEATS)
    changes = np.concatenate([np.concatenate([ends, known[None]], axis=3), random], axis=2)
    return float(stickiness(changes, SCORE_WEIGHTS)[0])


def screen(trial: Trial, tokens: list[int], pairs: list[Pair], places: Sequence[str]) -> Changes:
    """Return what each token changes by its full number of repeats."""
    found = []
    title = f"Screening tokens on {len(pairs)} pairs, {' and '.join(places)}"
    block = max(1, TEXTS_AT_ONCE // (len(places) * len(pairs)))
    with progress_bar(title, len(tokens)) as advance:
        for start in range(0, len(tokens), block):
            some = tokens[start : start + block]
            found.append(trial.changes(some, pairs, places, REPEATS[-1:]))
            advance(len(some))
    return np.concatenate(found)


def best_of(changes: Changes, count: int) -> list[int]:
    """Return the rows of the best screened tokens, best first; all places count alike."""
    places = changes.shape[2]
    order = np.argsort(-stickiness(changes, [1 / places] * places), kind="stable")
    return [int(row) for row in order[: max(VERIFIED, count)]]


def stickiness(changes: Changes, weights: Sequence[float]) -> Float64[np.ndarray, " tokens"]:
    """Return the score of each token from the changes of distance that it makes."""

    def mean(values: NDArray[np.float64]) -> Float64[np.ndarray, " tokens"]:
        weighted: Float64[np.ndarray, " tokens"] = values.mean(axis=(1, 3)) @ np.asarray(weights)
        return weighted

    falls = mean(np.maximum(-changes, 0)) + 0.1 * mean((changes < 0).astype(np.float64))
    rises = mean(np.maximum(changes, 0)) + 0.05 * mean((changes > 0).astype(np.float64))
    scores: Float64[np.ndarray, " tokens"] = falls / (rises + 0.01)
    return scores


def read_sentences(path: Path, model: TextEncoder, size: int) -> list[Ids]:
    """Read sentences that leave room for the insertions.

    Raises:
        UserError: If a row has no text, or there are too few.
    """
    texts: dict[str, None] = {}
    for place, row in read_objects(path):
        held = [row[name] for name in ("text", "sentence1", "sentence2") if name in row]
        found = [text for text in held if isinstance(text, str)]
        if not held or len(found) < len(held):
            raise UserError(place, "has no text", got=sorted(row), cure="Name another file")
        texts.update(dict.fromkeys(text for text in found if text.strip()))
        if len(texts) >= 4 * size:
            break
    limit = model.contract.length("document") - max(REPEATS)
    ids = [one for one in model.tokenization(list(texts), "document") if len(one) <= limit][:size]
    if len(ids) < UNLIKE_PAIRS:
        raise UserError(
            path, f"has fewer than {UNLIKE_PAIRS} sentences of at most {limit} tokens", got=len(ids)
        )
    return ids
