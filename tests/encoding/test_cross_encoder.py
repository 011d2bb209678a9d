from types import SimpleNamespace

import numpy as np
import torch
from transformers import BatchEncoding

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_work import PairWork


def test_of_two_classes_the_logit_is_that_of_the_second_less_the_first():
    """Which makes its sigmoid the second one's softmax."""
    encoder = object.__new__(CrossEncoder)
    encoder.batch_size, encoder.max_length, encoder.device = 2, 16, torch.device("cpu")
    encoder.work = PairWork()
    encoder.tokenizer = lambda queries, _, **__: BatchEncoding(
        {
            "x": torch.tensor([[*map(int, queries)]]),
            "attention_mask": torch.ones(len(queries), 1),
        }
    )
    encoder.model = lambda x, attention_mask: SimpleNamespace(
        logits=torch.stack([x[0] / 2, x[0] * 3.0], 1)
    )
    found = encoder.probabilities([("1", "a"), ("2", "bbb"), ("0", "cc")])
    expected = [torch.tensor([n / 2, 3.0 * n]).softmax(0)[1].item() for n in (1, 2, 0)]
    assert np.allclose(found, expected)
