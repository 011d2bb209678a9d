import csv

from embedtrain.training.callbacks import CsvLog, list_checkpoints


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
