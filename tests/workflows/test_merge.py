import json

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.workflows.merge import MergeWish, merge


@pytest.fixture
def two(bert, tmp_path) -> list[str]:
    """Two models that moved away from the same start."""
    paths = []
    for seed in range(2):
        model = build_dense(
            DenseConfig(backbone=bert, query={"length": 16}, document={"length": 16})
        )
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        save_encoder(model, tmp_path / f"model{seed}")
        paths.append(str(tmp_path / f"model{seed}"))
    return paths


def test_a_grid_measures_every_point_and_writes_the_best(two, bert, beir, tmp_path):
    wish = MergeWish(two, "delta", base=bert, grid=2, data=[str(beir)], split="dev")
    points = merge(wish, tmp_path / "merged")
    assert [(p.shares, p.granularity) for p in points] == [
        (shares, kind)
        for kind in ("tensor", "row", "element")
        for shares in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
    ]
    report = json.loads((tmp_path / "merged" / "merge.json").read_text())
    best = max(points, key=lambda point: point.mean)
    assert report["chosen"]["shares"] == list(best.shares)
    assert len({round(point.mean, 6) for point in points}) > 1
    assert load_encoder(str(tmp_path / "merged")).contract.query_length == 16


def test_models_with_other_contracts_and_wishes_without_sense_are_refused(
    two, bert, beir, tmp_path
):
    out = tmp_path / "out"
    cases = [
        (MergeWish([two[0], bert]), "another contract"),
        (MergeWish(two[:1]), "two or more"),
        (MergeWish(two, grid=2), "need each other"),
        (MergeWish(two, shares=[1.0, 2.0], grid=2, data=[str(beir)]), "takes the place"),
        (MergeWish([*two, two[0]], grid=2, data=[str(beir)], split="dev"), "between two models"),
    ]
    for wish, message in cases:
        with pytest.raises(UserError, match=message):
            merge(wish, out)
        assert not out.exists()
