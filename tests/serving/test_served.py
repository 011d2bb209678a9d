"""What a server makes of texts and of token ids, without the server."""

import pytest

from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import ServedEncoder


@pytest.mark.parametrize(
    "frames",
    [
        {"prompts": [{"suffix": " a"}, {"prompt": "the ", "suffix": " x"}]},
        {"query": {"suffix": " a"}, "document": {"suffix": " a"}},
    ],
)
def test_a_model_of_frames_takes_no_token_ids(frames, llama):
    config = DenseConfig(backbone=llama, pooling="last_token", **frames)
    served = ServedEncoder("toy", llama, build_dense(config, "cpu"), "fp32", 1000)
    assert served.prepare(["red cat"], "document")[1] == 0
    with pytest.raises(Refusal, match="send texts, not token ids"):
        served.prepare([[1, 2, 3]], "document")
