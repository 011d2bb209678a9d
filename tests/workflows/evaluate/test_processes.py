"""`embedtrain evaluate` on several processes: they share the encoding and write what one writes."""

import os
from collections import Counter

import pytest
import torch
from rank_toys import side_by_side

from embedtrain.encoding import cache as cache_module
from embedtrain.evaluation.results.result import load_result
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages


def evaluate_beside_others(bert, beir, sts, output):
    wish = Wish([str(beir), sts])
    results = evaluate_tasks(bert, wish, output)
    assert len(results) == 2
    assert results[0].efficiency is None, "no process has a speed of its own"


@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_of_torchrun_share_the_encoding_and_find_what_one_finds(
    ranks, bert, beir, sts, tmp_path, monkeypatch
):
    for name in ("FEWEST", "MOST"):
        monkeypatch.setattr(f"embedtrain.encoding.blocks.{name}", 4)
    encoded = tmp_path / "encoded"
    inner = cache_module.encode_pieces

    def noting(model, pieces, side, **settings):
        def noted():
            for piece in pieces:
                with encoded.open("a") as file:
                    file.writelines(f"{os.environ.get('RANK')}\t{side}\t{one}\n" for one in piece)
                yield piece

        return inner(model, noted(), side, **settings)

    monkeypatch.setattr(cache_module, "encode_pieces", noting)
    torch.set_num_threads(1)
    files, lines = [], []
    for number in (1, ranks):
        monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / f"cache-{number}"))
        output = tmp_path / f"scores-{number}"
        encoded.write_text("")
        alone = sorted(text for _, text in lines)
        if number == 1:
            evaluate_tasks(bert, Wish([str(beir), sts], efficiency=False), output)
        else:
            side_by_side(ranks, evaluate_beside_others, bert, beir, sts, output)
        lines = [line.split("\t", 1) for line in encoded.read_text().splitlines()]
        files.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert sorted(text for _, text in lines) == alone, "each text once, by one of them"
    most = max(Counter(rank for rank, _ in lines).values())
    assert most <= len(lines) / ranks + 4 * 4, "a block of each of four sets of texts"
    assert files[0] == files[1]


def rerank_beside_others(bert, cross_encoder, beir, output):
    (result,) = evaluate_two_stages(
        bert, Wish([str(beir)]), Reranking(cross_encoder, top=20), output
    )
    assert result.two_stage.cost is None


def test_processes_share_the_pairs_of_a_second_stage(
    bert, cross_encoder, beir, tmp_path, monkeypatch
):
    monkeypatch.setattr("embedtrain.encoding.pair_cache.PAIRS_AT_ONCE", 30)
    torch.set_num_threads(1)
    rows = []
    for ranks in (1, 2):
        cache = tmp_path / f"cache-{ranks}"
        monkeypatch.setenv("EMBEDTRAIN_CACHE", str(cache))
        output = tmp_path / f"two-{ranks}.json"
        if ranks == 1:
            wish = Wish([str(beir)], efficiency=False)
            evaluate_two_stages(bert, wish, Reranking(cross_encoder, top=20), output)
        else:
            side_by_side(ranks, rerank_beside_others, bert, cross_encoder, beir, output)
        parts = [path.stat().st_size for path in cache.rglob("*.scores")]
        assert len(parts) == ranks
        rows.append((sum(parts), output.with_suffix(".trec").read_bytes(), load_result(output)))
    assert rows[0] == rows[1], "each pair once, and the bits of one process"
