import csv
import os
from unittest.mock import Mock

import pytorch_lightning as pl

from embedtrain import progress
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.training import callbacks, measuring
from embedtrain.training.callbacks import CsvLog, WallLimit, list_checkpoints
from embedtrain.training.measuring import Validation, gains
from embedtrain.training.progress import StepProgress
from embedtrain.training.trained_module import TrainedModule


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_figures_of_a_step_share_a_row_and_new_columns_may_come_later(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, 0)
    log.log_metrics({"train/loss": 0.5}, 10)
    log.log_metrics({"val/ndcg_at_10": 0.25, "epoch": 0}, 10)
    found = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in found] == ["0", "10"]
    assert found[0]["val/ndcg_at_10"] == ""
    assert found[1] == {"step": "10", "train/loss": "0.5", "val/ndcg_at_10": "0.25"}


def test_a_line_of_the_log_does_not_wait_for_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=AssertionError))
    CsvLog(tmp_path / "metrics.csv").log_metrics({"train/loss": 1.0}, 0)
    assert len(rows(tmp_path / "metrics.csv")) == 1


def test_figures_of_speed_have_a_file_of_their_own_since_no_run_repeats_them(tmp_path):
    line = {"train/loss": 1.0, "speed/tokens_per_second": 5.0}
    for name, speed in (("metrics", False), ("speed", True)):
        CsvLog(tmp_path / f"{name}.csv", speed=speed).log_metrics(line, 10)
    assert rows(tmp_path / "metrics.csv") == [{"step": "10", "train/loss": "1"}]
    assert rows(tmp_path / "speed.csv") == [{"step": "10", "speed/tokens_per_second": "5"}]


def test_a_resumed_log_drops_what_the_killed_run_wrote_after_its_checkpoint(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    for step in (0, 10, 20):
        log.log_metrics({"train/loss": float(step)}, step)
    resumed = CsvLog(tmp_path / "metrics.csv", start_step=10)
    resumed.log_metrics({"train/loss": 99.0}, 20)
    assert [row["train/loss"] for row in rows(tmp_path / "metrics.csv")] == ["0", "10", "99"]


def test_checkpoints_are_listed_by_step(tmp_path):
    for name in ("step-00000010.ckpt", "step-00000002.ckpt", "best.ckpt", "step-00000011.partial"):
        (tmp_path / name).touch()
    assert [p.name[5:13] for p in list_checkpoints(tmp_path)] == ["00000002", "00000010"]


def test_time_that_is_over_for_another_rank_ends_this_one_in_the_same_step(monkeypatch, capfd):
    limit = WallLimit(seconds=3600.0)
    trainer = Mock(spec=pl.Trainer, max_steps=9, global_step=4, is_global_zero=True)
    trainer.fit_loop = Mock()
    trainer.fit_loop.epoch_loop.max_steps = 9
    limit.on_train_start(trainer, Mock(spec=pl.LightningModule))
    limit.on_step_end(trainer, None)
    assert not limit.reached
    assert trainer.fit_loop.epoch_loop.max_steps == 9
    monkeypatch.setattr(callbacks, "largest", lambda own: max(own, 1))  # what another one says
    limit.on_step_end(trainer, None)
    assert limit.reached
    assert trainer.fit_loop.epoch_loop.max_steps == 4
    assert "Ended at step 4 of 9" in " ".join(capfd.readouterr().err.split())
    assert limit.state_dict()["reached"]


def test_a_log_counts_optimizer_steps_and_shows_the_last_logged_loss(monkeypatch, capfd):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_RATIO", 0.0)
    trainer = Mock(pl.Trainer, is_global_zero=True, max_steps=4, accumulate_grad_batches=2)
    trainer.global_step = 1  # a resumed run
    module = Mock(TrainedModule, logged={})
    shown = StepProgress()
    shown.on_train_start(trainer, module)
    for number in range(2, 8):
        shown.on_train_batch_end(trainer, module, None, None, number)
        module.logged = {"train/loss": 0.25}
    shown.on_exception(trainer, module, KeyboardInterrupt())
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(" steps")[0] for line in lines] == [
        "Training: 2 of 4", "Training: 3 of 4", "Training: 4 of 4",
    ]  # fmt: skip
    assert all(line.endswith("loss 0.2500") for line in lines)


def test_only_the_first_rank_shows_progress(monkeypatch, capfd):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    trainer = Mock(pl.Trainer, is_global_zero=False, max_steps=4, accumulate_grad_batches=1)
    shown = StepProgress()
    shown.on_train_start(trainer, Mock(TrainedModule))
    shown.on_train_batch_end(trainer, Mock(TrainedModule), None, None, 0)
    shown.teardown(trainer, Mock(TrainedModule), "fit")
    assert capfd.readouterr().err == ""


def test_one_validation_without_a_better_score_is_not_several(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(measuring, "score_task", lambda *_: {"ndcg_at_10": {"q": 0.1}})
    trainer = Mock(pl.Trainer, is_global_zero=True, global_step=3, max_steps=9)
    waits = Validation(1, Mock(RetrievalTask), tmp_path, patience=1, best=0.5)
    waits.measure(trainer, Mock())
    assert trainer.should_stop
    assert "in 1 validation;" in capfd.readouterr().err


def test_only_a_gain_beyond_half_a_standard_error_counts_for_patience():
    start = [0.0, 1.0, 0.0, 1.0]
    assert gains(start, [], "auto")
    assert not gains([1.0, 0.0, 0.0, 1.0], start, "auto")
    assert not gains([0.9, 0.2, 0.1, 1.0], start, "auto"), "0.05 with a standard error of 0.35"
    assert gains([0.1, 1.0, 0.1, 1.0], start, "auto"), "0.05 with a standard error of 0.03"
    assert gains([0.1, 1.0, 0.1, 1.0], start, 0.04)
    assert not gains([0.1, 1.0, 0.1, 1.0], start, 0.06)


def test_small_gains_add_up_but_patience_begins_anew_only_where_they_are_enough(
    monkeypatch, tmp_path
):
    scores = iter([0.5, 0.52, 0.54, 0.56, 0.5])
    monkeypatch.setattr(measuring, "score_task", lambda *_: {"ndcg_at_10": {"q": next(scores)}})
    trainer = Mock(pl.Trainer, is_global_zero=False, global_step=3, max_steps=9)
    waits = Validation(1, Mock(RetrievalTask), tmp_path, patience=3, min_gain=0.05)
    misses = []
    for _ in range(5):
        waits.measure(trainer, Mock())
        misses.append(waits.misses)
    assert misses == [0, 1, 2, 0, 1]
    assert waits.best == 0.56
    again = Validation(1, Mock(RetrievalTask), tmp_path, patience=3, min_gain=0.05)
    again.load_state_dict(waits.state_dict() | {"measured": 3})
    assert (again.best, again.misses, again.reference) == (0.56, 1, [0.56])
