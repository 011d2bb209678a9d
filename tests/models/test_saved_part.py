"""Parts beside the backbone: their weights come back, and those of another part are refused in a line."""

import pytest
import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.saved_part import SavedPart


class Part(SavedPart):
    weights_file = "part.safetensors"
    shared = ("backbone.",)

    def __init__(self, size: int = 3, name: str = "own") -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        setattr(self, name, nn.Linear(size, size))


def test_own_weights_come_back_and_shared_ones_are_left_alone(tmp_path):
    part, other = Part(), Part()
    part.save(tmp_path)
    kept = other.backbone.weight.clone()
    other.load(tmp_path)
    assert torch.equal(other.own.weight, part.own.weight)
    assert torch.equal(other.backbone.weight, kept)
    other.load(tmp_path / "nowhere")
    assert torch.equal(other.own.weight, part.own.weight)


@pytest.mark.parametrize("other", [Part(size=4), Part(name="another")])
def test_weights_of_another_part_are_refused(other, tmp_path):
    Part().save(tmp_path)
    with pytest.raises(UserError, match=r"part\.safetensors does not fit the model; got \["):
        other.load(tmp_path)


def test_a_file_that_was_cut_off_is_said_in_a_line(tmp_path):
    Part().save(tmp_path)
    path = tmp_path / "part.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"part\.safetensors is no whole safetensors file; got "):
        Part().load(tmp_path)
