"""`embedtrain evaluate` on several processes: they share the encoding and write what one writes."""

import os
from collections import Counter

import pytest
import torch
from rank_toys import side_by_side

from embedtrain.encoding import cache as cache_module
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks


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
