"""What travels to a device: in one copy, from pinned memory, and known to the host as it was."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Bool, Float, Int64
from shadow import ShadowCuda
from torch import Tensor

from embedtrain import packed
from embedtrain.packed import Movable, Parcel, Texts, laid_end_to_end, upload


@dataclass(frozen=True)
class Mixed(Movable):
    """Tensors of several types and shapes, one of them empty, and a part."""

    flags: Bool[Tensor, " three"]
    texts: Texts
    numbers: Float[Tensor, "two three"]
    empty: Int64[Tensor, "none two"]
    name: str = "a"
    absent: Float[Tensor, " any"] | None = None


@pytest.fixture
def mixed() -> Mixed:
    texts = Texts(torch.tensor([5, 6, 7]), torch.tensor([2, 1]))
    numbers = torch.arange(6, dtype=torch.float64).view(2, 3)
    flags = torch.tensor([True, False, True])
    return Mixed(flags, texts, numbers, torch.empty(0, 2, dtype=torch.int64))


@pytest.fixture
def shadow():
    with ShadowCuda() as device:
        yield device


def assert_same(found: Mixed, wanted: Mixed) -> None:
    for name in ("flags", "numbers", "empty"):
        assert torch.equal(getattr(found, name).cpu(), getattr(wanted, name))
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
    assert found.texts.ids.tolist() == wanted.texts.ids.tolist()
    assert found.texts.sizes.tolist() == wanted.texts.sizes.tolist()
    assert (found.name, found.absent) == (wanted.name, wanted.absent)


def test_all_of_a_value_travels_in_one_copy_that_nobody_waits_for(mixed, shadow):
    with shadow.step() as step:
        moved = mixed.to("cuda")
    assert not step.waits, shadow.report(step)
    assert step.launches == {"_to_copy": 1}
    assert moved.numbers.is_cuda
    assert moved.texts.ids.is_cuda
    assert_same(moved, mixed)


def test_what_a_value_was_on_the_host_is_known_of_all_its_parts(mixed, shadow):
    moved = mixed.to("cuda")
    with shadow.step() as step:
        assert moved.on_host is mixed
        assert moved.texts.on_host is mixed.texts
        assert moved.texts.sizes is mixed.texts.lengths
        assert moved.to("cuda") is moved
    assert not step.waits, shadow.report(step)


def test_a_value_that_was_made_on_the_device_is_fetched_once(shadow):
    texts = Texts(
        torch.ones(2, dtype=torch.int64, device="cuda"), upload(torch.tensor([2]), "cuda")
    )
    with shadow.step() as step:
        assert texts.on_host.ids.tolist() == [1, 1]
        assert texts.on_host.lengths.tolist() == [2]
    assert step.waits.total() == 2


def test_a_parcel_survives_the_way_to_another_process(mixed):
    opened = pickle.loads(pickle.dumps(Parcel.of(mixed))).open("cpu")
    assert_same(opened, mixed)
    assert opened.on_host is opened


def test_a_gradient_finds_its_way_through_a_move(shadow):
    @dataclass(frozen=True)
    class Weight(Movable):
        value: Tensor

    weight = torch.ones(3, requires_grad=True)
    assert Weight(weight).to("cuda").value.requires_grad


def test_what_is_no_batch_is_not_pinned_as_a_whole(mixed, monkeypatch, shadow):
    monkeypatch.setattr(packed, "LARGEST_PARCEL", 8)
    with shadow.step() as step:
        moved = mixed.to("cuda")
    assert step.launches["_to_copy"] == 5
    assert_same(moved, mixed)
    assert moved.on_host is mixed


def test_an_upload_is_not_waited_for_and_a_plain_copy_is(shadow):
    values = torch.arange(3)
    with shadow.step() as step:
        there = upload(values, "cuda")
        again = upload(there, "cuda")
    assert not step.waits, shadow.report(step)
    assert there.is_cuda
    assert again.tolist() == [0, 1, 2]
    with shadow.step() as step:
        values.to("cuda")
    assert step.waits.total() == 1
    assert upload(values, "cpu") is values


def test_texts_are_chosen_and_joined_without_asking_the_device(mixed, shadow):
    there = mixed.texts.to("cuda")
    with shadow.step() as step:
        chosen = there.select(torch.tensor([1, 0, 1]))
        joined = laid_end_to_end(there, chosen)
    assert not step.waits, shadow.report(step)
    assert joined.ids.is_cuda
    assert joined.ids.tolist() == [5, 6, 7, 7, 5, 6, 7]
    assert joined.lengths.tolist() == joined.sizes.tolist() == [2, 1, 1, 2, 1]
