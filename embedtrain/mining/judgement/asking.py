"""Judges are asked, a block of pairs at a time: each answer is written down before the next block is paid for.

A killed run reads its own answers again and goes on; what another run asked the same model is in the cache of pairs.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.endpoint_scorers import EndpointScorer, EndpointYesNo
from embedtrain.encoding.language.settings import LanguageScorer
from embedtrain.encoding.pair_cache import PairCache
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.errors import UserError
from embedtrain.files import write_file
from embedtrain.mining.judgement.pairs import Pair
from embedtrain.outside import reading, writing

PAIRS_PER_BLOCK = 512
PAIRS_PER_LANGUAGE_BLOCK = 64
"""What a kill costs of a language model's answers."""
PROMPT_TOKENS = 60
TOKENS_PER_WORD = 1.4
"""About what a pair takes, before any was read."""
Spent = dict[str, int | float]


class Journal:
    """The answers that one judge gave in this run, a line for each block; a line that a kill cut off is dropped.

    Args:
        path: The file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[str, float] = {}
        """By the hash of a pair's texts."""
        self.spent: Spent = {}
        """With what blocks took that ended in an error."""
        whole = b""
        if path.is_file():
            with reading(path):
                content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_file(path, whole)
        for line in whole.splitlines():
            with suppress(ValueError, LookupError, TypeError):  # damaged: it is asked again
                self._take(json.loads(line))

    def add(self, scores: Mapping[str, float], spent: Spent) -> None:
        """Write down what a block was answered, nothing if that was lost, and what it took."""
        line = {"scores": dict(scores), "spent": spent}
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write((json.dumps(line) + "\n").encode())
        self._take(line)

    def _take(self, line: Mapping[str, Mapping[str, int | float]]) -> None:
        self.scores.update(line["scores"])
        self.spent = added(self.spent, dict(line["spent"]))


@dataclass
class AskedJudge:
    """A judge with what it said before and what it has taken in this run.

    Attributes:
        name: ``small`` or ``large``.
        scorer: What gives log-odds.
        cache: Scores of earlier runs; None keeps none.
    """

    name: str
    scorer: PairScorer
    journal: Journal
    cache: PairCache | None = None
    _cached: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def block(self) -> int:
        """Pairs that are asked at once."""
        language = isinstance(self.scorer, LanguageScorer)
        return PAIRS_PER_LANGUAGE_BLOCK if language else PAIRS_PER_BLOCK

    def remember(self, pairs: Sequence[Pair]) -> None:
        """Look up what earlier runs were answered, in one reading of the cache."""
        if self.cache is not None:
            texts = list(dict.fromkeys(pair.texts for pair in pairs))
            found = zip(texts, self.cache.find(texts).tolist(), strict=True)
            self._cached.update({pair: score for pair, score in found if not math.isnan(score)})

    def known(self, texts: tuple[str, str]) -> float | None:
        """Return the log-odds of a pair if it needs not be asked."""
        return self.journal.scores.get(_digest(texts), self._cached.get(texts))

    def ask(self, pairs: Sequence[Pair]) -> Float64[np.ndarray, " pairs"]:
        """Return log-odds of at most a block of pairs.

        Raises:
            UserError: If the judge cannot be asked, or says what is no number.
        """
        texts = [pair.texts for pair in pairs]
        missing = [pair for pair in dict.fromkeys(texts) if self.known(pair) is None]
        if missing:
            self._ask(missing)
        return np.array([self.known(pair) for pair in texts], dtype=np.float64)

    def expected_tokens(self, pair: Pair) -> float:
        """Return about what a pair takes; nothing where its answer is known."""
        if self.known(pair.texts) is not None:
            return 0.0
        if self.journal.spent.get("tokens"):
            return self.journal.spent["tokens"] / self.journal.spent["pairs"]
        return PROMPT_TOKENS + TOKENS_PER_WORD * len(f"{pair.query} {pair.text}".split())

    def _ask(self, missing: list[tuple[str, str]]) -> None:
        before, answers = _tally(self.scorer), {}
        try:
            # As the cache keeps them, so that both have the same bits.
            scores = np.asarray(self.scorer.logits(missing), dtype=np.float32)
            _refuse_no_numbers(self.name, scores)
            answers = dict(zip(map(_digest, missing), scores.tolist(), strict=True))
        finally:  # what was asked is paid for, even if its answers are lost
            after = _tally(self.scorer)
            spent = {name: round(after[name] - before[name], 6) for name in after}
            if any(spent.values()):
                self.journal.add(answers, spent)
        if self.cache is not None:
            self.cache.keep(missing, scores)


@dataclass(frozen=True)
class Budget:
    """What may be spent on all judges together; None is no limit."""

    tokens: int | None
    money: float | None
    judges: Sequence[AskedJudge]

    def room(self, judge: AskedJudge, pairs: Sequence[Pair]) -> int:
        """Return how many of the first pairs fit into what is left, by what a pair took so far."""
        left = math.inf
        if self.tokens is not None:
            left = self.tokens - sum(one.journal.spent.get("tokens", 0) for one in self.judges)
        if self.money is not None and isinstance(judge.scorer, EndpointScorer):
            price = judge.scorer.settings.endpoint.price
            money = self.money - sum(one.journal.spent.get("cost", 0) for one in self.judges)
            left = min(left, money / price * 1e6) if price else left
        for number, pair in enumerate(pairs):
            expected = judge.expected_tokens(pair)
            left -= expected
            if expected and left < 0:
                return number
        return len(pairs)


def added(first: Spent, second: Spent) -> Spent:
    """Return the sums of two bills."""
    names = dict.fromkeys([*first, *second])
    return {name: round(first.get(name, 0) + second.get(name, 0), 6) for name in names}


def _tally(scorer: PairScorer) -> Spent:
    work = scorer.work
    found: Spent = {"pairs": work.pairs, "tokens": work.tokens}
    if isinstance(scorer, EndpointScorer):
        bill = scorer.endpoint.spent()
        found["tokens"] = scorer.endpoint.prompt_tokens + scorer.endpoint.completion_tokens
        found |= {
            name: float(str(bill[name])) for name in ("requests", "retries", "cost") if name in bill
        }
    if isinstance(scorer, EndpointYesNo):
        found["malformed"] = scorer.malformed
    return found


def _digest(texts: tuple[str, str]) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()


def _refuse_no_numbers(name: str, scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        odd = float(scores[~np.isfinite(scores)][0])
        cure = "Use another precision, or another judge"
        raise UserError(
            f"the {name} judge", "gives a score that is no finite number", got=odd, cure=cure
        )
