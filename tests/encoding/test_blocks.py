"""Blocks of texts that a rank has encoded, and keeps until all are joined."""

import numpy as np
import pytest

from embedtrain.encoding import arrival
from embedtrain.encoding.blocks import encode_share
from embedtrain.models.build import load_dense


@pytest.mark.prove  # as vectors of tokens do, in test_texts.py
def test_blocks_from_a_gpu_do_not_keep_the_pinned_memory_they_came_in(bert, sentences, monkeypatch):
    shadow = pytest.importorskip("shadow")
    arrived, download = [], arrival.download
    monkeypatch.setattr(
        arrival, "download", lambda values: arrived.append(download(values)) or arrived[-1]
    )
    model = load_dense(bert)
    with shadow.ShadowCuda() as device:
        model = device.move(model)
        blocks = encode_share(model, sentences[:140], "document", [0, 1])
    pinned = [host.numpy() for host in arrived if host._pinned and host.dim()]
    assert [block.shape for block in blocks] == [host.shape for host in pinned]
    for block, host in zip(blocks, pinned, strict=True):
        np.testing.assert_array_equal(block, host)
        assert not np.shares_memory(block, host)
