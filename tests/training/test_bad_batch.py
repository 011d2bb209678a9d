"""A loss that is not finite is found: at once on a CPU, and on a GPU when the next one is there."""

from unittest.mock import Mock

import pytest
import torch
from shadow import ShadowCuda
from shadow_step import module_of, random_batch, run_steps

from embedtrain.errors import UserError
from embedtrain.training import trained_module
from embedtrain.training.bad_batch import LossWatch


@pytest.fixture
def kept(tmp_path):
    """Which losses had their batch saved."""
    saved = []

    def keep(number):
        saved.append(number)
        return tmp_path / str(number)

    keep.saved = saved
    return keep


def test_a_cpu_says_at_once_that_a_loss_is_bad_and_keeps_the_first(kept):
    watch = LossWatch()
    for number, loss in enumerate([1.0, float("nan"), float("inf")]):
        watch.note(torch.tensor(loss), number, lambda number=number: kept(number))
        assert (watch.bad is not None) == (number > 0)
    assert (watch.bad.step, watch.bad.is_late, kept.saved) == (1, False, [1])


def test_a_gpu_is_asked_about_a_loss_when_the_next_one_is_there(kept):
    watch = LossWatch()
    with ShadowCuda() as shadow:
        for number, loss in enumerate([1.0, float("-inf"), 2.0]):
            on_device = torch.full((), loss, device="cuda")
            with shadow.step() as step:
                watch.note(on_device, number, lambda number=number: kept(number))
            assert not step.waits, shadow.report(step)
            assert (watch.bad is not None) == (number > 1)
    assert (watch.bad.step, watch.bad.value, watch.bad.is_late) == (1, float("-inf"), True)
    assert kept.saved == [1]


def test_the_last_loss_is_waited_for_where_it_must_be_known(kept):
    watch = LossWatch()
    with ShadowCuda() as shadow, shadow.step() as step:
        watch.note(torch.full((), float("nan"), device="cuda"), 7, lambda: kept(7))
        assert watch.bad is None
        watch.look()
    assert step.waits.total() == 1
    assert (watch.bad.step, watch.bad.is_late) == (7, False)


@pytest.fixture
def spoilt(bert, monkeypatch, tmp_path):
    """A module whose second batch has no finite loss."""
    monkeypatch.chdir(tmp_path)
    module = module_of(bert, "dense", precision="fp32")
    loss, calls = module.loss, []

    def spoil(batch):
        calls.append(batch)
        return loss(batch) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(module, "loss", spoil)
    return module


def test_the_step_with_the_bad_loss_is_named_and_its_batch_kept_though_it_is_seen_later(
    spoilt, tmp_path
):
    from safetensors.torch import load_file

    with (
        ShadowCuda() as shadow,
        pytest.raises(UserError, match="step 2 has a loss that is not finite, which was seen a"),
    ):
        run_steps(shadow, spoilt, count=3)
    saved = load_file(tmp_path / "bad-batch-step-00000002-rank-0.safetensors")
    assert torch.equal(saved["documents.ids"], random_batch(1).documents.ids)


def test_a_rank_that_has_not_seen_the_bad_loss_names_its_step_all_the_same(bert, monkeypatch):
    module = module_of(bert, "dense", precision="fp32")
    module._trainer = Mock(global_step=9)
    elsewhere = iter([-1, 7])
    monkeypatch.setattr(trained_module, "largest", lambda number: max(number, next(elsewhere)))
    module.refuse_bad_loss()
    with pytest.raises(UserError, match=r"step 7 has a loss .* \(batch: the ranks that saw it"):
        module.refuse_bad_loss()


def test_no_checkpoint_is_made_of_weights_that_a_bad_loss_has_spoilt(spoilt):
    with ShadowCuda() as shadow:
        run_steps(shadow, spoilt, count=2)
        with pytest.raises(UserError, match=r"step 2 has a loss that is not finite \(batch"):
            spoilt.on_save_checkpoint({"state_dict": {}})
