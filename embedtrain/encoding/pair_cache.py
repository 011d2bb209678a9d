"""Scores of pairs, kept by what scored them: a killed run goes on, and no pair is scored twice.

Each process appends to a file of its own, so none waits for another, and a kill spoils no record but its last.
A record is 24 bytes: a hash of both texts, the score in float32, and a checksum of both. What does not fit its
checksum is passed over and scored again.
"""

import hashlib
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from embedtrain.encoding.encoder_pairs import EncoderPairs
from embedtrain.encoding.language.likelihood import Likelihood
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.errors import UserError
from embedtrain.files import write_file
from embedtrain.outside import reading, writing

HASH, RECORD = 16, 24
PAIRS_AT_ONCE = 4096
"""Pairs that a scorer gets in a call: enough to sort by length, few enough to be done again after a kill."""
Pairs = Sequence[tuple[str, str]]
PerPair = Float32[np.ndarray, " pairs"]


@dataclass(frozen=True)
class ScoredPairs:
    """The scores of pairs, and what it took to get them."""

    scores: PerPair
    num_scored: int
    """Pairs that were not known before; each text pair counts once."""
    seconds: float
    """For those."""


class PairCache:
    """The scores that one scorer has given.

    Args:
        cache: Folder of caches.
        key: Of the scorer: whatever changes a score changes it.
    """

    def __init__(self, cache: Path, key: str) -> None:
        self.folder = cache / "pair_scores" / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.own = self.folder / f"{uuid.uuid4().hex}.scores"

    def find(self, pairs: Pairs) -> PerPair:
        """Return the scores of pairs, NaN where one is not known."""
        files = sorted(self.folder.glob("*.scores")) if self.folder.is_dir() else []
        wanted = [_hash(pair) for pair in pairs]
        known = dict.fromkeys(
            wanted, np.nan
        )  # of what all runs have scored only this is kept in memory
        for path in files:
            known.update(record for record in _read(path) if record[0] in known)
        return np.array([known[name] for name in wanted], dtype=np.float32)

    def keep(self, pairs: Pairs, scores: PerPair) -> None:
        """Append the scores of pairs.

        Raises:
            UserError: If the disk does not take them.
        """
        found = zip(pairs, scores.tolist(), strict=True)
        records = [_hash(pair) + struct.pack("<f", score) for pair, score in found]
        content = b"".join(record + struct.pack("<I", zlib.crc32(record)) for record in records)
        with writing(self.own):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.own.open("ab") as file:
                file.write(content)

    def wait(self, pairs: Pairs, shard: Shard) -> None:
        """Say that this process has scored its share of pairs, and wait until the others have."""
        digest = hashlib.blake2b(b"".join(map(_hash, pairs)), digest_size=HASH).hexdigest()
        marks = [
            self.folder / f"{digest}-{rank}-of-{shard.ranks}.done" for rank in range(shard.ranks)
        ]
        write_file(marks[shard.rank], "")
        wait_for(marks)


def score_once(
    scorer: PairScorer,
    pairs: Pairs,
    place: str,
    cache: PairCache | None,
    progress: Callable[[int], None] = lambda _: None,
    shard: Shard | None = None,
) -> ScoredPairs:
    """Score the pairs that ``cache`` does not know, a block at a time, and keep each block.

    Blocks are cut from all pairs, known or not: what a kill or another process left is scored in the blocks, and
    so with the bits, of one process that was not disturbed.

    Args:
        scorer: What scores them.
        pairs: Query and document of each; in their order, for a scorer may share what a query's pairs share.
        place: Names the scorer in errors.
        cache: Where scores are kept; None keeps none.
        progress: Called with a number of pairs each time some are done.
        shard: This process among several with the same pairs and cache, which share the blocks.

    Raises:
        UserError: If a score is not finite, or the disk takes no more.
    """
    distinct, shard = list(dict.fromkeys(pairs)), shard or Shard()
    if isinstance(scorer, EncoderPairs | Likelihood):  # these read a document once for many queries
        distinct.sort(key=itemgetter(1))
    scores = np.full(len(distinct), np.nan, np.float32) if cache is None else cache.find(distinct)
    num_scored, seconds = 0, 0.0
    for number, start in enumerate(range(0, len(distinct), PAIRS_AT_ONCE)):
        missing = np.isnan(scores[start : start + PAIRS_AT_ONCE])
        rows = start + np.flatnonzero(missing)
        if shard.takes(number) and len(rows):
            block = [distinct[row] for row in rows.tolist()]
            begin = time.perf_counter()
            found = scorer.logits(block)
            seconds += time.perf_counter() - begin
            _refuse_not_finite(found, place)
            scores[rows] = found
            if cache is not None:
                cache.keep(block, scores[rows])
            num_scored += len(block)
        progress(len(missing))
    if cache is not None and shard.ranks > 1:
        cache.wait(distinct, shard)
        return replace(score_once(scorer, pairs, place, cache), num_scored=num_scored)
    row_of = {pair: row for row, pair in enumerate(distinct)}
    return ScoredPairs(scores[[row_of[pair] for pair in pairs]], num_scored, seconds)


def score_lists(
    scorer: PairScorer,
    lists: Sequence[Pairs],
    place: str,
    progress: Callable[[int], None] = lambda _: None,
) -> ScoredPairs:
    """Score pairs by what reads the documents of a query together; return the scores of all lists end to end.

    Nothing is kept, for a score belongs to its list.

    Raises:
        UserError: If a score is not finite.
    """
    found, begin = [], time.perf_counter()
    for own in lists:
        found.append(scorer.logits(own))
        progress(len(own))
    scores = np.concatenate(found) if found else np.zeros(0)
    _refuse_not_finite(scores, place)
    return ScoredPairs(scores.astype(np.float32), len(scores), time.perf_counter() - begin)


def _refuse_not_finite(scores: Float64[np.ndarray, " pairs"], place: str) -> None:
    """Refuse scores that no order can be made of."""
    odd = scores[~(np.abs(scores) <= np.finfo(np.float32).max)]
    if len(odd):
        problem = f"gives {len(odd):,} of {len(scores):,} pairs a score that is not finite"
        raise UserError(place, problem, got=float(odd[0]), cure="Check its weights and precision")


def _hash(pair: tuple[str, str]) -> bytes:
    query, document = (text.encode(errors="surrogatepass") for text in pair)
    content = len(query).to_bytes(8, "little") + query + document
    return hashlib.blake2b(content, digest_size=HASH).digest()


def _read(path: Path) -> Iterator[tuple[bytes, float]]:
    """Yield the whole records of a file."""
    with reading(path), path.open("rb") as file:
        while len(whole := file.read(RECORD)) == RECORD:
            record, (checksum,) = whole[:-4], struct.unpack_from("<I", whole, RECORD - 4)
            if zlib.crc32(record) == checksum:
                yield record[:HASH], struct.unpack_from("<f", record, HASH)[0]
