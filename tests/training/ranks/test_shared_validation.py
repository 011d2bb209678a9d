"""Validation that ranks share: each text is encoded once, and what is found is that of one rank to the bit."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from rank_toys import on_ranks

from embedtrain.data.sources import load_task
from embedtrain.encoding import blocks
from embedtrain.evaluation.measures.metrics import mean_scores, score_ranking
from embedtrain.models.build import load_encoder
from embedtrain.training.ranks.exchange import from_first, to_first
from embedtrain.training.ranks.processes import largest, own_shard
from embedtrain.training.validation import encode_task_share, join_task, rank_task
from embedtrain.types import TokenVectors

BLOCK = 2


def arrays_of(vectors):
    return [vectors.values, vectors.lengths] if isinstance(vectors, TokenVectors) else [vectors]


def validate(model, task, agree=None):
    """Return what ``Validation`` computes, and the arrays that it searched, on the first rank."""
    shares = to_first(encode_task_share(model, task, own_shard(), agree=agree))
    found = None
    if shares is not None:
        encoded = join_task(model, task, shares)
        figures = mean_scores(score_ranking(rank_task(task, encoded), ["ndcg_at_10", "mrr_at_10"]))
        found = figures, [*arrays_of(encoded.queries), *arrays_of(encoded.documents)]
    return from_first(found)


@pytest.fixture
def counted(monkeypatch):
    """Let a few texts be many blocks; return how often each text was encoded in this process."""
    texts, inner = Counter(), blocks.encode_pieces

    def counting(model, pieces, side, **settings):
        def noting():
            for piece in pieces:
                texts.update((side, text) for text in piece)
                yield piece

        return inner(model, noting(), side, **settings)

    monkeypatch.setattr(blocks, "encode_pieces", counting)
    for name in ("FEWEST", "MOST"):
        monkeypatch.setattr(blocks, name, BLOCK)
    return texts


def work(path, beir, expected, texts, folder):
    model, task = load_encoder(path), load_task(str(beir), "test")
    figures, arrays = validate(model, task)
    assert figures == expected[0]
    for one, other in zip(arrays, expected[1], strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    (folder / str(dist.get_rank())).write_bytes(pickle.dumps(dict(texts)))


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_encode_each_text_once_and_find_the_bits_of_one(
    kind, ranks, beir, counted, tmp_path, request
):
    torch.set_num_threads(1)
    path, task = request.getfixturevalue(kind), load_task(str(beir), "test")
    expected = validate(load_encoder(path), task)
    alone = dict(counted)
    counted.clear()
    on_ranks(ranks, work, path, beir, expected, counted, tmp_path)
    by_rank = [pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(ranks)]
    assert sum(map(Counter, by_rank), Counter()) == Counter(alone)
    numbers = [sum(one.values()) for one in by_rank]
    assert max(numbers) <= sum(numbers) / ranks + BLOCK, numbers


def sharded(path, beir, expected):
    """Where weights are sharded, every pass is one of all ranks."""
    model, task = load_encoder(path), load_task(str(beir), "test")
    passes, embed = [], type(model).embed

    def counting(self, texts, execution, side="document"):
        passes.append(1)
        return embed(self, texts, execution, side)

    type(model).embed = counting
    figures, _ = validate(model, task, agree=largest)
    assert figures == expected[0]
    assert largest(len(passes)) == len(passes) == -largest(-len(passes))


def test_where_weights_are_sharded_all_ranks_run_as_many_passes(bert, beir, monkeypatch):
    torch.set_num_threads(1)
    for name in ("FEWEST", "MOST"):
        monkeypatch.setattr(blocks, name, 8)  # 2 blocks of queries and 4 of documents for 4 ranks
    expected = validate(load_encoder(bert), load_task(str(beir), "test"))
    on_ranks(4, sharded, bert, beir, expected)


def exchange():
    rank = dist.get_rank()
    value = {"rank": rank, "values": np.arange(rank * 1000)}
    found = to_first(value)
    assert (found is None) == (rank > 0)
    if found is not None:
        assert [one["rank"] for one in found] == [0, 1, 2]
        assert [len(one["values"]) for one in found] == [0, 1000, 2000]
    assert from_first(rank + 7) == 7


def test_values_of_any_size_reach_the_first_rank_in_order():
    on_ranks(3, exchange)
