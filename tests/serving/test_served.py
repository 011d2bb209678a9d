"""What a server makes of texts and of token ids, without the server."""

import pytest

from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import ServedEncoder


@pytest.mark.parametrize(
    "frames",
    [
        {
            "prompts": [{"suffix": " a"}, {"prompt": "the ", "suffix": " x"}],
            "document": {"length": 6},
        },
        {"query": {"suffix": " a"}, "document": {"suffix": " a", "length": 6}},
    ],
)
def test_a_model_of_frames_counts_what_it_cuts_and_takes_no_token_ids(frames, llama):
    config = DenseConfig(backbone=llama, pooling="last_token", **frames)
    served = ServedEncoder("toy", llama, build_dense(config, "cpu"), "fp32", 1000)
    assert served.prepare(["red cat", "red " * 30, "dog"], "document")[1] == 1
    with pytest.raises(Refusal, match="send texts, not token ids"):
        served.prepare([[1, 2, 3]], "document")
