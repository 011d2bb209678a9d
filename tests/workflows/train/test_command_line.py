"""The command line as a user meets it: with exit codes and one clear line."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from embedtrain.cli.main import main


@pytest.fixture(scope="module")
def run_folder(embedtrain, recipe, beir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = [
        "train",
        recipe,
        f"validation={{path: {beir}, split: dev, every_steps: 6}}",
        f"evaluation={{path: {beir}, split: test}}",
        "trainer.loggers=[wandb, tensorboard]",
        "--output",
        folder,
    ]
    done = embedtrain(arguments)
    assert done.returncode == 0, done.stderr
    assert "embedtrain search" in done.stdout, "the next commands are shown"
    return folder


def test_a_run_that_cannot_begin_leaves_the_place_free(embedtrain, recipe, tmp_path):
    words = ["train", recipe, "objective={name: kl_distillation}", "--output", tmp_path / "run"]
    for _ in range(2):
        failed = embedtrain(words)
        assert failed.returncode == 2
        assert "learns from a teacher's scores" in failed.stderr, "not that the folder exists"
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_what_later_work_relies_on(run_folder):
    resolved = yaml.safe_load((run_folder / "recipe.yaml").read_text())
    assert resolved["model"]["pooling"] == "mean", "the contract is resolved"
    rows = list(csv.DictReader((run_folder / "metrics.csv").read_text().splitlines()))
    assert {"step", "train/loss", "val/ndcg_at_10", "train/effective_rank"} <= rows[0].keys()
    assert not any(name.startswith("speed/") for name in rows[0])
    speeds = list(csv.DictReader((run_folder / "speed.csv").read_text().splitlines()))
    logged = [row["step"] for row in rows if row["train/loss"]]
    assert [row["step"] for row in speeds] == logged[1:], "between two lines of the log"
    assert all(float(row["speed/tokens_per_second"]) > 0 for row in speeds)
    assert all(0 <= float(row["speed/data_wait_ratio"]) < 1 for row in speeds)
    assert "speed/mfu" not in speeds[0], "a CPU is in no table"
    assert list((run_folder / "checkpoints").glob("*.ckpt"))
    evaluation = json.loads((run_folder / "evaluation.json").read_text())
    for part in ("before", "after"):
        score = evaluation[part]["ndcg_at_10"]
        assert score["low"] <= score["value"] <= score["high"]
    assert evaluation["after"]["train_overlap"]["queries_sharing_13_words"] == 0.0
    assert (
        "of the test queries are among the training queries, "
        in (run_folder / "model" / "README.md").read_text()
    )
    environment = json.loads((run_folder / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert json.loads((run_folder / "data.json").read_text())[0]["fingerprint"]
    assert list(run_folder.glob("wandb/offline-run-*"))
    assert list(run_folder.glob("tensorboard/events*"))


def test_the_model_card_holds_scores_recipe_and_fingerprints(run_folder):
    card = (run_folder / "model/README.md").read_text()
    _, header, body = card.split("---\n", 2)
    metadata = yaml.safe_load(header)
    value = json.loads((run_folder / "evaluation.json").read_text())["after"]["ndcg_at_10"]["value"]
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert {"type": "ndcg_at_10", "value": round(value, 5)} in metrics
    assert "| nDCG@10 |" in body
    assert "batch_size: 8" in body
    fingerprint = json.loads((run_folder / "data.json").read_text())[0]["fingerprint"]
    assert fingerprint[:16] in body
    assert "$" not in body


def test_encode_keeps_the_order_of_the_input(embedtrain, run_folder, tmp_path, sentences):
    with gzip.open(tmp_path / "texts.jsonl.gz", "wt") as file:
        for text in sentences[:30]:
            file.write(json.dumps({"text": text}) + "\n")
    (tmp_path / "one.txt").write_text(sentences[17] + "\n")
    for name, output in (("texts.jsonl.gz", "all.npy"), ("one.txt", "one.npy")):
        arguments = ["encode", run_folder / "model", tmp_path / name, "--output", tmp_path / output]
        assert embedtrain(arguments).returncode == 0
    vectors = np.load(tmp_path / "all.npy")
    assert vectors.shape == (30, 32)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors[17], np.load(tmp_path / "one.npy")[0], atol=1e-5)


def test_evaluate_writes_metrics_and_compares_with_a_baseline(
    embedtrain, run_folder, beir, bert, tmp_path
):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    first = embedtrain(["evaluate", bert, "--data", beir, "--output", before])
    assert first.returncode == 0, first.stderr
    arguments = ["evaluate", run_folder / "model", "--data", beir, "--output", after]
    done = embedtrain([*arguments, "--baseline", before])
    assert done.returncode == 0, done.stderr
    result = json.loads(after.read_text())
    stored = json.loads((run_folder / "evaluation.json").read_text())["after"]
    assert result["ndcg_at_10"] == stored["ndcg_at_10"], "the export scores like the run"
    assert "p_value" in result["comparison"]["metrics"]["ndcg_at_10"]
    assert result["efficiency"]["bytes_per_document"] == 32 * 4


def test_search_answers_once_and_interactively(embedtrain, run_folder):
    once = embedtrain(["search", run_folder / "model", "red cat", "--top", "3"])
    assert once.returncode == 0, once.stderr
    assert "3. d" in once.stdout
    assert "4. d" not in once.stdout
    asked = embedtrain(["search", run_folder / "model"], input="red cat\nblue dog\n\n")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("1. d") == 2


def test_search_finds_the_answers_of_a_file_of_pairs_each_once(embedtrain, run_folder, write_jsonl):
    pairs = write_jsonl(
        [{"question": f"red cat {n}", "answer": f"blue dog {n % 2}"} for n in range(6)]
    )
    done = embedtrain(["search", run_folder / "model", "red cat", "--data", pairs])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("blue dog 0") == done.stdout.count("blue dog 1") == 1
    assert "red cat" not in done.stdout


def test_search_with_sets_finds_what_the_first_have_and_the_second_lack(
    in_process, run_folder, tmp_path
):
    (tmp_path / "like.txt").write_text("red cat\nred bird\n")
    (tmp_path / "unlike.txt").write_text("red bird\n")
    sets = ["--like", tmp_path / "like.txt", "--unlike", tmp_path / "unlike.txt", "--top", "2"]
    model = run_folder / "model"
    found = in_process(["search", model, *sets])
    assert found[0] == 0, found
    code, error = in_process(["search", model, "red cat", *sets])
    assert code == 2
    assert "takes the place of a query" in error
    assert in_process(["search", model, "--unlike", tmp_path / "like.txt"])[0] == 2


def test_check_shows_recipe_data_and_estimate_and_leaves_no_run(embedtrain, recipe, tmp_path):
    done = embedtrain(["check", recipe], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in ("12 steps of", "GB", "40", "in all"):
        assert expected in done.stdout
    assert done.stdout.index("12 steps of") < done.stdout.index("batch_size: ")
    assert "weight_decay" not in done.stdout
    every = embedtrain(
        ["check", recipe, "trainer.precision=auto", "--verbose", "--device", "h100"], cwd=tmp_path
    )
    assert "On h100 in bf16 (computed from its data sheet, not measured)" in every.stdout
    assert "weight_decay: 0.01" in every.stdout
    assert not list(tmp_path.iterdir())


def test_doctor_exits_with_0_when_gradients_are_exact(embedtrain, recipe):
    done = embedtrain(["doctor", recipe, "trainer.rematerialize=true"])
    assert done.returncode == 0, done.stderr
    assert "within the bound" in done.stdout


def test_recipes_are_listed(embedtrain):
    listed = embedtrain(["recipes"])
    assert "quickstart" in listed.stdout


@pytest.mark.parametrize(
    "name", ["check", "train", "encode", "search", "evaluate", "export", "doctor", "recipes"]
)
def test_every_command_has_a_help_page_with_an_example(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["embedtrain", name, "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "Example" in capsys.readouterr().out


def test_import_and_help_do_not_load_torch():
    for code in ("import embedtrain", "import embedtrain.cli.main"):
        script = f"{code}; import sys; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", script], check=True)


def with_data(recipe: Path, path: Path) -> list[str]:
    return ["train", str(recipe), f"data.sources=[{{path: {path}}}]"]


@pytest.fixture
def in_process(monkeypatch, capsys, tmp_path):
    """Run the command line here, which is faster; return exit code and standard error."""

    def run(arguments) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["embedtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    return run


def test_mistakes_exit_with_2_and_one_line_and_write_nothing(
    in_process, recipe, bert, beir, tmp_path
):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "column.jsonl").write_text('{"q": "a", "d": "b"}\n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"query": "caf\xe9", "positive": "b"}\n')
    (tmp_path / "nan.jsonl").write_text('{"query": "a", "positive": "b", "scores": [NaN]}\n')
    (tmp_path / "surrogate.jsonl").write_text('{"query": "a \\ud83d", "positive": "b"}\n')
    (tmp_path / "few.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    cases = [
        ("unknown key", ["train", recipe, "trainer.step=3"]),
        ("does not exist", ["train", "none.yaml"]),
        ("is empty", with_data(recipe, tmp_path / "empty.jsonl")),
        ("column", with_data(recipe, tmp_path / "column.jsonl")),
        ("latin.jsonl:1 is not UTF-8", with_data(recipe, tmp_path / "latin.jsonl")),
        ("nan", with_data(recipe, tmp_path / "nan.jsonl")),
        ("is more than the 1 rows", with_data(recipe, tmp_path / "few.jsonl")),
        ("does not exist", ["train", recipe, "validation={path: ./none, split: dev}"]),
        ("does not exist", ["train", recipe, "evaluation={path: ./none}"]),
        ("half of a surrogate pair", with_data(recipe, tmp_path / "surrogate.jsonl")),
        ("split", ["evaluate", bert, "--data", beir, "--split", "none"]),
        ("is not a run folder", ["train", "--resume", tmp_path]),
        ("no run was begun there", ["train", "--resume", tmp_path / "none"]),
        ("RECIPE is missing", ["train"]),
        ("takes the recipe from the run", ["train", recipe, "--resume", tmp_path]),
        ("must end in .npy", ["encode", bert, tmp_path / "few.jsonl", "--output", "x.txt"]),
        ("has no column", ["encode", bert, tmp_path / "column.jsonl", "--output", "x.npy"]),
        ("names no evaluation data", ["search", bert, "cat"]),
    ]
    before = sorted(tmp_path.iterdir())
    for message, arguments in cases:
        code, error = in_process(arguments)
        last = error.strip().splitlines()[-1]
        assert code == 2, (message, error)
        assert last.startswith("error: "), (message, error)
        assert message.lower() in last.lower(), (message, last)
        assert "Traceback" not in error
        assert sorted(tmp_path.iterdir()) == before, message


def test_a_mistake_in_a_process_of_its_own_exits_with_2(embedtrain, recipe):
    command = [sys.executable, "-m", "embedtrain", "train", str(recipe), "trainer.step=3"]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    for done in (started, embedtrain(["train", "--no-such-flag"])):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_an_existing_run_is_not_overwritten(embedtrain, recipe, run_folder):
    done = embedtrain(["train", recipe, "--output", run_folder])
    assert done.returncode == 2
    assert "--resume" in done.stderr
