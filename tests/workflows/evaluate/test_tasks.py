"""The workflow behind `embedtrain evaluate`: several tasks, resumed, compared, from the command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import price_work
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import load_result, write_result
from embedtrain.evaluation.tasks.retrieval import METRICS
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.retrieval.compression import Compression
from embedtrain.workflows.evaluate import tasks as workflow
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.prepare import load_task


def test_several_tasks_go_into_a_folder_and_an_interrupted_evaluation_goes_on(
    bert, beir, sts, tmp_path, monkeypatch
):
    output, done = tmp_path / "scores", []
    wish = Wish([str(beir), sts], efficiency=False)
    real = workflow.evaluate_task

    def stop_at_the_second(subject, task, wish):
        done.append(task.kind)
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(subject, task, wish)

    monkeypatch.setattr(workflow, "evaluate_task", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(bert, wish, output)
    results = evaluate_tasks(bert, wish, output)
    assert done == ["retrieval", "sts", "sts"], "the first task was not done again"
    assert sorted(path.name for path in output.iterdir()) == [
        f"{beir.name}.test.json",
        f"{beir.name}.test.trec",
        "pairs.dev.json",
    ]
    assert load_result(output / "pairs.dev.json") == results[1]
    assert set(results[1].predictions.predicted) == {str(number) for number in range(1, 41)}


def test_per_query_scores_are_recomputed_from_the_ranking_file(bert, beir, tmp_path):
    (result,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False), tmp_path / "a.json")
    run = read_run(tmp_path / "a.trec")
    task = load_task(str(beir), "test")
    assert score_run(task.qrels, run, METRICS) == result.per_query


def test_another_checkpoint_is_measured_anew_in_the_same_file(bert, sts, tmp_path):
    model = load_encoder(bert)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_encoder(model, tmp_path / "other")
    output = tmp_path / "a.json"
    (first,) = evaluate_tasks(bert, Wish([sts]), output)
    (second,) = evaluate_tasks(str(tmp_path / "other"), Wish([sts]), output)
    assert first.model.weights != second.model.weights
    assert first.metrics != second.metrics
    assert load_result(output) == second


def test_a_baseline_is_compared_whether_it_is_a_file_or_a_folder(bert, beir, sts, tmp_path):
    wish = Wish([str(beir), sts], efficiency=False)
    evaluate_tasks(bert, wish, tmp_path / "before")
    again = Wish([str(beir), sts], efficiency=False, baseline=tmp_path / "before")
    for result in evaluate_tasks(bert, again, tmp_path / "after"):
        for paired in result.comparison.metrics.values():
            assert (paired.difference, paired.p_value) == (0.0, 1.0)
    other = Wish([sts], baseline=tmp_path / "before" / f"{beir.name}.test.json")
    with pytest.raises(UserError, match="was measured on other data"):
        evaluate_tasks(bert, other)


def test_clusters_come_from_a_column_and_stay_in_the_result(bert, sts, sentences):
    (plain,) = evaluate_tasks(bert, Wish([sts]))
    (clustered,) = evaluate_tasks(bert, Wish([sts], clusters="topic"))
    assert clustered.clusters["1"] == sentences[0].split()[0]
    assert clustered.metrics["spearman"].value == plain.metrics["spearman"].value
    assert clustered.metrics["spearman"].low != plain.metrics["spearman"].low
    with pytest.raises(UserError, match="has no column subject"):
        evaluate_tasks(bert, Wish([sts], clusters="subject"))


def counted(monkeypatch):
    """Return a list that grows by one for each task that is done, not taken from a file."""
    done, real = [], workflow.evaluate_task

    def count(subject, task, wish):
        done.append(task.data.name)
        return real(subject, task, wish)

    monkeypatch.setattr(workflow, "evaluate_task", count)
    return done


def test_a_result_with_other_clusters_is_not_taken_for_the_one_that_is_asked_for(
    bert, sts, tmp_path, monkeypatch
):
    done, output = counted(monkeypatch), tmp_path / "a.json"
    (plain,) = evaluate_tasks(bert, Wish([sts]), output)
    (clustered,) = evaluate_tasks(bert, Wish([sts], clusters="topic"), output)
    assert set(clustered.clusters) == set(plain.predictions.predicted)
    assert clustered.metrics["spearman"].low != plain.metrics["spearman"].low
    assert load_result(output) == clustered
    assert evaluate_tasks(bert, Wish([sts], clusters="topic"), output) == [clustered]
    assert len(done) == 2, "the same column again was taken from the file"
    assert evaluate_tasks(bert, Wish([sts]), output) == [plain]
    assert load_result(output) == plain


def test_a_result_without_efficiency_is_measured_again_where_it_is_wished(
    bert, beir, tmp_path, monkeypatch
):
    done, output = counted(monkeypatch), tmp_path / "a.json"
    (bare,) = evaluate_tasks(bert, Wish([str(beir)], efficiency=False), output)
    assert bare.efficiency is None
    (timed,) = evaluate_tasks(bert, Wish([str(beir)]), output)
    assert timed.efficiency is not None
    assert load_result(output) == timed
    for efficiency in (True, False):
        assert evaluate_tasks(bert, Wish([str(beir)], efficiency=efficiency), output) == [timed]
    assert len(done) == 2


def test_a_price_is_worked_out_from_the_times_that_are_kept(bert, beir, tmp_path, monkeypatch):
    done, output = counted(monkeypatch), tmp_path / "a.json"
    (timed,) = evaluate_tasks(bert, Wish([str(beir)]), output)
    for per_hour in (3.0, 6.0):
        (priced,) = evaluate_tasks(bert, Wish([str(beir)], price_per_hour=per_hour), output)
        cost = priced.efficiency
        assert cost.price == price_work(per_hour, cost.documents_per_second, cost.query_latency)
        assert replace(cost, price=None) == timed.efficiency
        assert load_result(output) == priced
    assert len(done) == 1
    moved = replace(timed.efficiency, machine=replace(timed.efficiency.machine, cpu="another"))
    write_result(timed.model_copy(update={"efficiency": moved}), output)
    (here,) = evaluate_tasks(bert, Wish([str(beir)], price_per_hour=3.0), output)
    with pytest.raises(UserError, match=r"^--price is worked out from the time"):
        evaluate_tasks(bert, Wish([str(beir)], price_per_hour=3.0, efficiency=False))
    assert here.efficiency.machine == timed.efficiency.machine, "the price is of this machine"
    assert here.efficiency.price.per_hour == 3.0


def test_late_interaction_does_every_task_that_compares_texts(
    late_interaction, beir, sts, write_jsonl, sentences
):
    rows = [{"sentence1": text, "sentence2": text} for text in sentences[:5]]
    bitext = str(write_jsonl(rows, "bitext.jsonl"))
    results = evaluate_tasks(late_interaction, Wish([str(beir), sts, bitext]))
    assert [result.data.task for result in results] == ["retrieval", "sts", "bitext_mining"]
    assert results[0].efficiency.bytes_per_document > 8 * 4


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("one.json", "is one file for several tasks"),
        ("file", "is a file; got"),
        ("file/folder", "lies below a file"),
    ],
)
def test_an_output_that_cannot_hold_the_results_is_refused_before_any_work(
    output, message, bert, beir, sts, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(workflow, "load_encoder", lambda _: pytest.fail("loaded a model"))
    with pytest.raises(UserError, match=message):
        evaluate_tasks(bert, Wish([str(beir), sts]), tmp_path / output)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="--output is a folder"):
        evaluate_tasks(bert, Wish([sts]), tmp_path / "folder.json")
    with pytest.raises(UserError, match="two tasks of one name"):
        evaluate_tasks(bert, Wish([sts, sts]), tmp_path / "folder")
    with pytest.raises(UserError, match="--data is missing"):
        evaluate_tasks(bert, Wish([]))


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_cut_and_quantised_vectors_are_evaluated_and_never_taken_for_whole_ones(
    kind, request, beir, tmp_path
):
    model, place = request.getfixturevalue(kind), tmp_path / "a.json"
    results = []
    for compression in (
        Compression(),
        Compression(quantize="int8"),
        Compression(quantize="binary", rescore=30),
        Compression(dim=8, quantize="int8"),
    ):
        wish = Wish([str(beir)], compression=compression, price_per_hour=1.0)
        results += evaluate_tasks(model, wish, place)
    sizes = [result.efficiency.bytes_per_document for result in results]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[3] <= sizes[1]
    scores = [result.metrics["ndcg_at_10"].value for result in results]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
    assert results[2].model.settings == {"quantize": "binary", "rescore": 30}
    assert results[0].efficiency.price.per_million_documents > 0
    assert load_result(place) == results[3]


def test_the_overlap_with_the_training_split_beside_is_measured_by_default(bert, beir, tmp_path):
    folder = shutil.copytree(beir, tmp_path / "beir")
    wish = Wish([str(folder)], efficiency=False)
    assert evaluate_tasks(bert, wish)[0].train_overlap is None
    train = folder / "qrels" / "train.tsv"
    train.write_text("query-id\tcorpus-id\tscore\nq0\td5\t1\nq3\td3\t1\n")
    (result,) = evaluate_tasks(bert, wish, tmp_path / "a.json")
    assert result.train_overlap == {"equal_queries": 0.2, "queries_sharing_13_words": 0.0}
    shown = " ".join(render_text(result).split())
    assert "20.0% of the test queries are among the training queries" in shown
    assert load_result(tmp_path / "a.json") == result
    train.write_text("query-id\tcorpus-id\tscore\nnobody\td5\t1\n")
    assert evaluate_tasks(bert, wish)[0].train_overlap is None, "said, and no reason to stop"


def test_quantised_indexes_are_for_retrieval_and_cut_vectors_for_all(bert, sts):
    (cut,) = evaluate_tasks(bert, Wish([sts], compression=Compression(dim=4)))
    (whole,) = evaluate_tasks(bert, Wish([sts]))
    assert cut.metrics["spearman"] != whole.metrics["spearman"]
    with pytest.raises(UserError, match="--quantize is for indexes of retrieval"):
        evaluate_tasks(bert, Wish([sts], compression=Compression(quantize="int8")))


def test_the_command_line_takes_several_tasks_and_prints_a_table_of_each(bert, beir, sts, tmp_path):
    arguments = ["evaluate", bert, "--data", str(beir), "--data", sts, "--no-efficiency"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "scores")])
    assert done.exit_code == 0, done.output
    for shown in ("nDCG@10", "Spearman", "pairs dev"):
        assert shown in done.output
    content = json.loads((tmp_path / "scores" / "pairs.dev.json").read_text())
    assert content["model"]["weights"] == Subject(load_encoder(bert), "", tmp_path).key


def test_the_command_line_takes_no_dimensions_for_a_mistake_of_the_users(bert, sts):
    done = CliRunner().invoke(app, ["evaluate", bert, "--data", sts, "--dim", "0"])
    assert done.exit_code == 2
    assert "--dim" in done.output


def test_an_instruction_is_chosen_at_evaluation_time_and_stands_in_the_result(bert, sts, tmp_path):
    shown = {"text": "near near", "template": "plain", "both_sides": True}
    model = build_dense(DenseConfig(backbone=bert, instructions={"alike": shown}))
    folder = str(tmp_path / "model")
    save_encoder(model, Path(folder))
    model.contract = model.contract.under("alike")
    save_encoder(model, tmp_path / "always")
    output = tmp_path / "scores" / "a.json"
    (plain,) = evaluate_tasks(folder, Wish([sts]), output)
    command = ["evaluate", folder, "--data", sts, "--output", str(output), "--instruction", "alike"]
    assert CliRunner().invoke(app, command).exit_code == 0
    under, (always,) = load_result(output), evaluate_tasks(str(tmp_path / "always"), Wish([sts]))
    assert under.metrics == always.metrics
    assert under.metrics != plain.metrics
    assert under.model.settings == {"instruction": "alike"}
    with pytest.raises(UserError, match="Choose from: alike"):
        evaluate_tasks(folder, Wish([sts], instruction="other"))


def test_a_precision_stands_in_the_result_and_is_not_taken_for_another(bert, beir, tmp_path):
    output = tmp_path / "scores.json"
    settings = []
    for precision in ("auto", "bf16", "fp32"):
        wish = Wish([str(beir)], efficiency=False, precision=precision)
        evaluate_tasks(bert, wish, output)
        settings.append(load_result(output).model.settings)
    assert settings == [{}, {"precision": "bf16"}, {}]
