"""Parts beside the backbone: their weights come back, and those of another part are refused in a line."""

import pytest
import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.saved_part import SavedPart, restored


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


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Part(size=4), r"holds own\.bias of another shape than the model's, \[4\]; got \[3\]"),
        (Part(name="another"), r"lacks 2 tensors .*: another\.bias, another\.weight"),
    ],
)
def test_weights_of_another_part_are_refused(other, words, tmp_path):
    Part().save(tmp_path)
    with pytest.raises(UserError, match=rf"part\.safetensors {words}"):
        other.load(tmp_path)


def test_a_part_that_the_folder_says_it_has_must_be_there_and_takes_no_memory_before(tmp_path):
    with pytest.raises(UserError, match=r"part\.safetensors is missing"):
        restored(Part, tmp_path, required=True)
    assert isinstance(restored(Part, tmp_path, required=False), Part)
    Part().save(tmp_path)
    with pytest.raises(
        UserError, match=r"own\.bias of another shape than the model's, \[10000000\]"
    ):
        restored(lambda: Part(10**7), tmp_path, required=True)  # 400 TB


def test_a_file_that_was_cut_off_is_said_in_a_line(tmp_path):
    Part().save(tmp_path)
    path = tmp_path / "part.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"part\.safetensors cannot be read; got "):
        Part().load(tmp_path)
