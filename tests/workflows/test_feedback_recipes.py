"""The recipes whose teacher is a language model, on tiny models: every stage runs to its end."""

import json

import pytest
from completions_stub import CompletionsStub, said
from document_toys import write_folder

from embedtrain.resources import find_recipe
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline

pytestmark = pytest.mark.usefixtures("forked_reloads")

QUICK = "{steps: 2, batch_size: 4, learning_rate: 1.0e-3, precision: fp32}"


@pytest.fixture
def few(pairs, write_jsonl):
    """Twelve of the pairs: six documents have 64 sets to be read."""
    return write_jsonl([json.loads(line) for line in pairs.read_text("utf-8").splitlines()[:12]])


@pytest.fixture
def answers(few, write_jsonl):
    """An answer to each query: the end of its document."""
    rows = [json.loads(line) for line in few.read_text("utf-8").splitlines()]
    known = {row["query"]: row["positive"].split()[-1] for row in rows}
    return write_jsonl(
        [{"query": key, "answer": value} for key, value in known.items()], "answers.jsonl"
    )


def run(name, output, *overrides):
    return run_pipeline(load_pipeline(find_recipe(f"distill/{name}"), overrides), output)


def learnt_rows(folder, stage):
    text = (folder / stage / "scored.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_utilities_in_a_shared_context_are_learnt(bert, language_model, few, answers, tmp_path):
    folder = run(
        "scarlet",
        tmp_path / "run",
        f"mined.model={bert}",
        f"mined.data={few}",
        f"scored.teacher={language_model}",
        f"scored.language.answers={answers}",
        f"student.model.backbone={bert}",
        "mined.settings.rule.kind=none",
        "student.model.document.length=48",
        f"student.trainer={QUICK}",
    )
    asked = json.loads((folder / "scored" / "scored.teacher.json").read_text("utf-8"))
    assert asked["attribution"] == "shapley"
    rows = learnt_rows(folder, "scored")
    assert rows
    for row in rows:
        assert len(row["scores"]) == len(row["positives"]) + len(row["negatives"])
        assert len(set(row["scores"])) > 1
    assert max(len(row["scores"]) for row in rows) == 6
    assert (folder / "student" / "model" / "config.json").is_file()


def test_tasks_on_shared_contexts_are_written_weighed_and_learnt(bert, language_model, tmp_path):
    docs = write_folder(tmp_path / "docs", 4)

    def write(path, body):
        texts = body["messages"][-1]["content"].split("\n\n")[:3]
        words = [text.split() for text in texts]
        entries = [
            {"slot": slot, "text": f"where is {words[slot - 1][4]} by {words[slot - 1][9]}",
             "answer": words[slot - 1][6].strip("."), "texts": [slot]} for slot in (1, 2)
        ]  # fmt: skip
        return said(json.dumps({"queries": entries}))

    with CompletionsStub(write) as stub:
        folder = run(
            "scarlet_contexts",
            tmp_path / "run",
            f"written.corpus={docs}",
            f"written.llm={stub.url}#toy",
            f"written.settings.base={bert}",
            "written.settings.contexts={texts: 3, number: 4, tasks: [question, relation]}",
            f"scored.teacher={language_model}",
            f"student.model.backbone={bert}",
            "student.model.document.length=48",
            f"student.trainer={QUICK}",
        )
    rows = learnt_rows(folder, "scored")
    assert len(rows) > 4
    assert all(len(row["scores"]) == 3 and len(set(row["scores"])) > 1 for row in rows)
    assert (folder / "student" / "model" / "config.json").is_file()


@pytest.mark.prove
def test_two_rounds_of_feedback_score_what_the_student_finds(
    bert, language_model, few, answers, tmp_path
):
    folder = run(
        "udr",
        tmp_path / "run",
        f"mined.model={bert}",
        *(f"{stage}.data={few}" for stage in ("mined", "again")),
        *(f"{stage}.teacher={language_model}" for stage in ("scored", "rescored")),
        *(f"{stage}.language.answers={answers}" for stage in ("scored", "rescored")),
        f"first.model.backbone={bert}",
        f"second.model.backbone={bert}",
        *(f"{stage}.model.document.length=48" for stage in ("first", "second")),
        *(f"{stage}.trainer={QUICK}" for stage in ("first", "second")),
    )
    candidates = [
        [row["negatives"] for row in learnt_rows(folder, stage)] for stage in ("scored", "rescored")
    ]
    assert candidates[0] != candidates[1]
    assert (folder / "second" / "model" / "config.json").is_file()


@pytest.mark.parametrize("kind", ["likelihood", pytest.param("pairwise", marks=pytest.mark.prove)])
def test_scores_of_a_language_model_are_learnt_and_measured(
    kind, bert, language_model, few, beir, tmp_path
):
    folder = run(
        "upr",
        tmp_path / "run",
        f"mined.model={bert}",
        f"mined.data={few}",
        f"scored.teacher={language_model}",
        f"scored.kind={kind}",
        "mined.settings.rule.kind=none",
        f"mined.settings.num_negatives={2 if kind == 'pairwise' else 7}",
        f"student.model.backbone={bert}",
        "student.model.document.length=48",
        f"student.trainer={QUICK}",
        f"scores.path={beir}",
    )
    assert all(len(set(row["scores"])) > 1 for row in learnt_rows(folder, "scored"))
    assert "ndcg_at_10" in json.loads((folder / "scores" / "scores.json").read_text("utf-8"))
