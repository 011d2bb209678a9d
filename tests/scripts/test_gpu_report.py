"""The report's logic: what is run again, limits, stages that fail, and what its page says."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
from places import SCRIPTS


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


PROGRAM = """
import json, sys, time
from pathlib import Path
stage, rows = sys.argv[1:]
with open(rows, "a") as file:
    file.write(json.dumps({"stage": stage, "at": time.time()}) + "\\n")
    file.flush()
    if stage == "hangs":
        time.sleep(60)
    if stage == "breaks":
        sys.exit("the driver went away")
"""
KEY = {"commit": "a1", "device": "toy", "torch": "2"}


def a_stage(name, seconds=30):
    from gpu_report_stages import Stage

    return Stage(name, seconds, "", "", f"Stage {name}")


def runner(tmp_path, *, budget=100.0, **key):
    from gpu_report_runner import Runner

    return Runner(tmp_path, KEY | key, [sys.executable, "-c", PROGRAM], budget)


def test_a_stage_that_is_done_is_not_done_again_unless_something_changed(tmp_path):
    (first,) = runner(tmp_path).run([a_stage("one")])
    assert (first["status"], first["rows"][0]["stage"]) == ("done", "one")
    (again,) = runner(tmp_path).run([a_stage("one")])
    assert again == first
    for changed in ({"commit": "b2"}, {"device": "other"}, {"torch": "3"}):
        (other,) = runner(tmp_path, **changed).run([a_stage("one")])
        assert other["rows"][0]["at"] > first["rows"][0]["at"]


def test_a_stage_that_fails_says_why_and_is_tried_again_and_others_go_on(tmp_path):
    results = runner(tmp_path).run([a_stage("breaks"), a_stage("one")])
    assert results[0]["status"] == "failed with code 1: the driver went away"
    assert results[1]["status"] == "done"
    assert runner(tmp_path).known(a_stage("breaks")) is None
    (tmp_path / "one.json").write_text("{")
    assert runner(tmp_path).known(a_stage("one")) is None


def test_a_stage_that_hangs_is_stopped_and_keeps_the_rows_it_had(tmp_path, monkeypatch):
    import gpu_report_runner

    monkeypatch.setattr(gpu_report_runner, "SHORTEST", 0.0)
    start = time.monotonic()
    (result,) = runner(tmp_path).run([a_stage("hangs", seconds=2)])
    assert time.monotonic() - start < 30
    assert result["status"] == "out of time: stopped after 2 s"
    assert [row["stage"] for row in result["rows"]] == ["hangs"]


def test_what_the_budget_leaves_no_time_for_is_not_begun(tmp_path):
    (result,) = runner(tmp_path, budget=1.0).run([a_stage("one")])
    assert result["status"].startswith("not begun")
    assert result["rows"] == []


def result(stage, *rows, status="done"):
    return {"stage": stage, "title": stage, "status": status, "seconds": 1, "rows": list(rows)}


def verdicts(*results):
    from gpu_report_page import goals

    return [verdict for _, _, verdict in goals(results)]


H100 = result("device", {"fact": "in the table", "value": "h100"})


def cell(form="embedtrain auto", ms=40.0, roofline=0.7, **changed):
    return {"form": form, "B": 65_536, "D": 384, "type": "bf16", "ms": ms, "roofline": roofline} | changed  # fmt: skip


def test_goals_are_reached_not_reached_or_not_measured():
    assert verdicts() == ["not measured"] * 6
    good = [
        H100,
        result("infonce", cell(), cell(form="memeff", ms=1.0)),
        result("step", {"shape": "BERT-base", "longest": 512, "way": "packed", "mfu": 0.5}),
        result("syncs", {"shape": "MiniLM", "syncs": 0}),
        result("correct", {"holds": True}, {"skipped": "no Triton"}),
        result("packed", {"holds": True}),
    ]
    assert verdicts(*good) == ["reached"] * 6
    bad = [
        H100,
        result("infonce", cell(ms=60.0, roofline=0.5)),  # 184 ms x 312 / 989 are 58
        result("step", {"shape": "BERT-base", "longest": 512, "mfu": 0.4}),
        result("syncs", {"shape": "MiniLM", "syncs": 2}),
        result("correct", {"holds": True}, {"holds": False}),
        result("packed", {"holds": True}, {"problem": "RuntimeError"}),
    ]
    assert verdicts(*bad) == ["not reached"] * 6


def test_other_sizes_types_and_forms_reach_no_goal():
    others = [cell(B=4096), cell(type="fp32"), cell(form="memeff, both directions")]
    assert verdicts(H100, result("infonce", *others))[0] == "not measured"


def test_a_device_without_a_row_has_no_share_of_a_peak():
    unknown = result("device", {"fact": "in the table", "value": "no"})
    row = cell()
    del row["roofline"]
    found = verdicts(unknown, result("infonce", row))
    assert (found[0], found[3]) == ("not measured", "not measured")


def test_the_page_shows_every_column_and_says_what_went_wrong():
    from gpu_report_page import render

    rows = [{"a": 1234, "b": "x|y"}, {"a": 2, "c": True}]
    page = render([result("one", *rows), result("two", status="out of time")], "toy")
    assert "| a | b | c |" in page
    assert "| 1,234 | x/y |  |" in page
    assert "**out of time**" in page
    assert "No rows." in page


def test_a_cell_that_fails_or_lacks_something_is_a_row(tmp_path):
    from gpu_report_setting import Missing, attempt

    def lacks():
        raise Missing("memeff is not here")

    def breaks():
        raise RuntimeError("CUDA error: first\nsecond")

    assert attempt({"B": 1}, lacks) == {"B": 1, "skipped": "memeff is not here"}
    assert attempt({"B": 1}, breaks) == {"B": 1, "problem": "RuntimeError: CUDA error: first"}
    assert attempt({"B": 1}, dict) == {"B": 1}


def test_a_stage_whose_package_is_missing_is_skipped(monkeypatch):
    from gpu_report_stages import Stage

    absent = Stage("x", 1, "gpu_report_absent", "rows", "")
    assert list(absent.rows(None)) == [{"skipped": "gpu_report_absent is not here"}]


def test_every_stage_has_a_function_and_all_fit_into_nine_minutes_without_scale():
    from importlib import import_module

    from gpu_report_stages import STAGES

    for stage in STAGES:
        assert callable(getattr(import_module(stage.module), stage.function))
    assert sum(stage.seconds for stage in STAGES if stage.name != "scale") <= 540


def test_without_a_device_nothing_is_measured(tmp_path, capsys):
    import torch
    from gpu_report import main

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    assert main(["--output", str(tmp_path / "out")]) == 2
    assert "nothing was measured" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_serve_are_refused_in_one_line(tmp_path, capsys):
    from gpu_report import main

    taken, empty = tmp_path / "file", tmp_path / "empty"
    taken.write_text("kept")
    empty.mkdir()
    call = ["--device", "cpu", "--tiny", "--stage", "device", "--output"]
    assert main([*call, str(taken)]) == 2
    assert main([*call, str(tmp_path / "out"), "--wheels", str(empty)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["--output", "--wheels"]
    assert taken.read_text() == "kept"
    assert not any((tmp_path / "out").iterdir())


def test_carried_wheels_are_unpacked_once_and_come_first(tmp_path, monkeypatch):
    import zipfile

    from gpu_report_main import unpack

    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "toy_carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_carried.py", "VALUE = 7\n")
    site = unpack(tmp_path / "wheels", tmp_path / "out")
    assert (site / "toy_carried.py").read_text() == "VALUE = 7\n"
    (site / "toy_carried.py").write_text("VALUE = 8\n")
    assert unpack(tmp_path / "wheels", tmp_path / "out") == site
    assert (site / "toy_carried.py").read_text() == "VALUE = 8\n"


def test_the_fused_kernels_are_compared_in_the_interpreter(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    import gpu_report_correct
    import torch
    from gpu_report_setting import Setting

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu_report_correct, "DTYPES", {"fp32": torch.float32})
    rows = list(gpu_report_correct.rows(Setting(torch.device("cpu"), True, tmp_path)))
    fused = [row for row in rows if row["form"] == "fused"]
    assert {row["operation"] for row in fused} == {"InfoNCE", "MaxSim"}
    assert all(row["holds"] for row in rows), rows
    rightly = gpu_report_correct.infonce

    def wrongly(*values, backend, **known):
        loss = rightly(*values, backend="reference", **known).loss
        return SimpleNamespace(loss=loss if backend == "reference" else 1.01 * loss)

    monkeypatch.setattr(gpu_report_correct, "infonce", wrongly)
    rows = gpu_report_correct.rows(Setting(torch.device("cpu"), True, tmp_path))
    assert not any(row["holds"] for row in rows if row["operation"] == "InfoNCE")


@pytest.mark.prove
def test_the_whole_report_runs_at_toy_sizes_on_a_cpu(tmp_path):
    from gpu_report import main

    arguments = ["--output", str(tmp_path), "--device", "cpu", "--tiny", "--budget", "900"]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {one["status"] for one in report} == {"done"}
    problems = [row for one in report for row in one["rows"] if "problem" in row]
    assert problems == []
    by_stage = {one["stage"]: one["rows"] for one in report}
    assert all(row["holds"] for row in by_stage["correct"] + by_stage["packed"] if "holds" in row)
    assert any("tokens_per_second" in row for row in by_stage["step"])
    page = (tmp_path / "report.md").read_text()
    assert page.count("not measured") >= 3
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert main(arguments) == 0
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    del before["report.json"], after["report.json"]
    assert after == before, "nothing is measured twice"
