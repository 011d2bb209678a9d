import torch

from embedtrain.models.pooling import pack_states, pool, positions

STATES = torch.tensor([[1.0, 0], [2, 4], [3, -1], [10, 20]])
LENGTHS = torch.tensor([3, 1])


def test_each_pooling_gives_the_value_worked_by_hand():
    expected = {
        "cls": [[1.0, 0], [10, 20]],
        "last_token": [[3.0, -1], [10, 20]],
        "mean": [[2.0, 1], [10, 20]],
        "max": [[3.0, 4], [10, 20]],
        "weighted_mean": [[(1 + 4 + 9) / 6, (0 + 8 - 3) / 6], [10, 20]],
    }
    for pooling, value in expected.items():
        assert torch.allclose(pool(STATES, LENGTHS, pooling), torch.tensor(value)), pooling


def test_left_and_right_padding_pool_alike():
    junk = torch.full((2,), 99.0)
    right = torch.stack([STATES[:3], torch.stack([STATES[3], junk, junk])])
    left = torch.stack([STATES[:3], torch.stack([junk, junk, STATES[3]])])
    mask_right = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    mask_left = torch.tensor([[1, 1, 1], [0, 0, 1]]).bool()
    for states, mask in ((right, mask_right), (left, mask_left)):
        packed, lengths = pack_states(states, mask)
        assert torch.equal(packed, STATES)
        assert torch.equal(lengths, LENGTHS)


def test_positions_restart_with_each_text():
    assert positions(torch.tensor([3, 1, 2])).tolist() == [0, 1, 2, 0, 0, 1]


def test_half_precision_states_are_pooled_in_float32():
    assert pool(STATES.bfloat16(), LENGTHS, "mean").dtype == torch.float32
