import json

from page_reader import read

from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.evaluate.report_speed import read_speed, speed_section


def a_run(tmp_path, speed):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "recipe.yaml").write_text("description: odd\n")
    (run / "speed.csv").write_text(speed)
    return run


def test_a_page_shows_the_median_speed_and_the_most_memory(tmp_path):
    run = a_run(
        tmp_path,
        "step,speed/tokens_per_second,speed/mfu,speed/padding_ratio,speed/peak_memory_bytes\n"
        "10,900,0.1,0.25,1000000000\n20,1000,0.41,0.25,3000000000\n30,5000,0.9,0.25,2000000000\n",
    )
    text = " ".join(read(write_report([run], tmp_path / "run.html")).texts)
    for words in ("Tokens a second", "1,000", "41.0%", "25.0%", "3 GB"):
        assert words in text
    assert "No MFU" not in text
    assert json.loads((tmp_path / "run.json").read_text())["speed"]["mfu"] == 0.41


def test_a_run_without_figures_has_no_section_and_a_cpu_no_mfu(tmp_path):
    run = a_run(tmp_path, "step,speed/texts_per_second\n10,5\n")
    assert read_speed(run / "nothing.csv") == {}
    assert speed_section({}) == []
    text = " ".join(read(write_report([run], tmp_path / "run.html")).texts)
    assert "No MFU" in text
