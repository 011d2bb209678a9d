"""The bridge to mteb, without network: tiny models, files in place of Hub data."""

import json
import shutil
import warnings

import pytest
import torch
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import load_result
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.workflows.evaluate.mteb import MtebWish, evaluate_mteb, find_tasks
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mteb = pytest.importorskip("mteb")

pytestmark = pytest.mark.filterwarnings("default")  # mteb and what it imports warn of themselves


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir, sentences):
    """One file of each kind, named as it says."""
    folder = tmp_path_factory.mktemp("data")
    labels = [text.split()[0] in {"red", "cat", "the", "runs"} for text in sentences]
    pairs = list(zip(sentences[:60], sentences[60:120], strict=True))
    rows = {
        "sts": [
            {"sentence1": one, "sentence2": other, "score": (len(one) * 7 + len(other)) % 50 / 10}
            for one, other in pairs
        ],
        "pairs": [
            {"sentence1": one, "sentence2": other, "label": len(one) % 2} for one, other in pairs
        ],
        "bitext": [{"sentence1": one, "sentence2": f"{one} house"} for one, _ in pairs],
        "topics": [
            {"text": text, "label": int(label)}
            for text, label in zip(sentences, labels, strict=True)
        ],
        "reranked": [
            {"query": " ".join(one.split()[:2]), "positive": [one], "negative": sentences[130:135]}
            for one, _ in pairs[:20]
        ],
    }
    for name, found in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{name}.test.jsonl").write_text(text)
    for part in ("train", "test"):
        shutil.copy(folder / "topics.test.jsonl", folder / f"labels.{part}.jsonl")
    shutil.copytree(beir, folder / "beir")
    return folder


OURS = {
    "beir": "ndcg_at_10",
    "reranked.test.jsonl": "map_at_1000",
    "sts.test.jsonl": "spearman",
    "pairs.test.jsonl": "average_precision",
    "bitext.test.jsonl": "f1",
    "labels.test.jsonl": "accuracy",
}


def test_every_kind_of_task_scores_in_mteb_as_it_does_here(bert, data, tmp_path):
    paths = [str(data / name) for name in [*OURS, "topics.test.jsonl"]]
    scores = evaluate_mteb(bert, MtebWish(["local"], paths), tmp_path)
    found = {score.task: score.value for score in scores}
    assert 0 <= found.pop("topics") <= 1  # mteb clusters random samples: near ours, not equal
    ours = evaluate_tasks(bert, Wish(paths[:-1], efficiency=False))
    for result, metric in zip(ours, OURS.values(), strict=True):
        assert found[result.data.name] == pytest.approx(result.metrics[metric].value, abs=1e-5)
    recomputed = {path.name for path in tmp_path.glob("scores/*/*.json")}
    assert recomputed == {f"{name.removesuffix('.test.jsonl')}.test.json" for name in OURS}
    place = next(tmp_path.glob("scores/*/beir.test.json"))
    assert load_result(place).per_query["ndcg_at_10"] == ours[0].per_query["ndcg_at_10"]


def test_late_interaction_searches_and_reranks_and_is_refused_the_rest(
    late_interaction, data, tmp_path
):
    paths = [str(data / "beir"), str(data / "reranked.test.jsonl")]
    scores = evaluate_mteb(late_interaction, MtebWish(["local"], paths), tmp_path)
    ours = evaluate_tasks(late_interaction, Wish(paths, efficiency=False))
    assert [score.value for score in scores] == pytest.approx(
        [ours[0].metrics["ndcg_at_10"].value, ours[1].metrics["map_at_1000"].value], abs=1e-5
    )
    wish = MtebWish(["local"], [str(data / "sts.test.jsonl")])
    with pytest.raises(UserError, match=r"several vectors per text.*; got \['sts'\]"):
        evaluate_mteb(late_interaction, wish, tmp_path)


def test_two_checkpoints_of_one_name_never_share_a_result(bert, data, tmp_path):
    folder, wish = tmp_path / "model", MtebWish(["local"], [str(data / "beir")])
    model = load_encoder(bert)
    scores = []
    for _ in range(2):
        save_encoder(model, folder)
        scores.append(evaluate_mteb(str(folder), wish, tmp_path / "out")[0].value)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    assert len(list(tmp_path.glob("out/results/*/*/beir.json"))) == 2
    assert scores[0] != scores[1]


def test_what_was_run_is_not_run_again_unless_the_data_changed(bert, data, tmp_path, monkeypatch):
    folder = tmp_path / "beir"
    shutil.copytree(data / "beir", folder)
    wish = MtebWish(["local"], [str(folder)])
    first = evaluate_mteb(bert, wish, tmp_path / "out")
    from embedtrain.evaluation.mteb.model import MtebModel

    with monkeypatch.context() as patch:
        patch.setattr(MtebModel, "search", lambda *_, **__: pytest.fail("searched again"))
        assert evaluate_mteb(bert, wish, tmp_path / "out") == first
    qrels = folder / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text().replace("q0\td0", "q0\td5"))
    assert evaluate_mteb(bert, wish, tmp_path / "out") != first


def test_a_file_replaces_the_hub_data_of_a_known_task(bert, data, tmp_path):
    wish = MtebWish(["SciFact"], [f"SciFact={data / 'beir'}"])
    (score,) = evaluate_mteb(bert, wish, tmp_path)
    assert (score.task, score.metric) == ("SciFact", "ndcg_at_10")
    (ours,) = evaluate_tasks(bert, Wish([str(data / "beir")], efficiency=False))
    assert score.value == pytest.approx(ours.metrics["ndcg_at_10"].value, abs=1e-5)


def test_a_task_of_several_languages_needs_its_subset_named(bert, data, tmp_path):
    path = data / "bitext.test.jsonl"
    with pytest.raises(UserError, match=r"several subsets.*Name one: Tatoeba:"):
        find_tasks(MtebWish(["Tatoeba"], [f"Tatoeba={path}"]))
    (score,) = evaluate_mteb(bert, MtebWish(["Tatoeba"], [f"Tatoeba:fra-eng={path}"]), tmp_path)
    assert (score.subset, score.metric) == ("fra-eng", "f1")


@pytest.mark.parametrize(
    ("names", "data_of", "message"),
    [
        (["NoSuchTask"], (), "names no benchmark and no task"),
        (["local"], (), "has no data to run on"),
        (["SciFact"], ("STS12={}/beir",), "data of a task that is not run; got 'STS12'"),
        (["SciFact"], ("SciFact={}/sts.test.jsonl",), "must be a task of Retrieval; got 'STS'"),
        (["Tatoeba"], ("Tatoeba:xx={}/bitext.test.jsonl",), "unknown subset; got 'xx'"),
    ],
)
def test_wishes_that_cannot_be_met_are_the_users_mistake(names, data_of, message, data):
    with pytest.raises(UserError, match=message):
        find_tasks(MtebWish(names, [one.format(data) for one in data_of]))


def test_hub_data_that_cannot_be_fetched_says_how_to_give_files(bert, tmp_path, monkeypatch):
    def offline(self, **_):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(mteb.get_task("SciFact").__class__, "load_data", offline)
    with pytest.raises(UserError, match=r"cannot be loaded; got 'no network'.*SciFact=PATH"):
        evaluate_mteb(bert, MtebWish(["SciFact"]), tmp_path)


def test_prompts_of_a_task_replace_those_of_the_contract_and_have_a_revision_of_their_own(
    bert, data, tmp_path
):
    (tmp_path / "prompts.json").write_text(json.dumps({"beir-query": "red house tree: "}))
    plain = MtebWish(["local"], [str(data / "beir")])
    prompted = MtebWish(["local"], [str(data / "beir")], prompts=tmp_path / "prompts.json")
    scores = [evaluate_mteb(bert, wish, tmp_path / "out")[0].value for wish in (plain, prompted)]
    assert scores[0] != scores[1]
    summary = json.loads((tmp_path / "out" / "mteb.json").read_text())
    assert summary["prompts"]["beir"] == ["red house tree: ", ""]
    (tmp_path / "prompts.json").write_text("[1]")
    with pytest.raises(UserError, match="is not an object of texts"):
        evaluate_mteb(bert, prompted, tmp_path / "out")


def test_the_command_line_runs_tasks_of_mteb(bert, data, tmp_path):
    arguments = ["evaluate", bert, "--mteb", "local", "--data", str(data / "beir"), "--output"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "ndcg_at_10" in done.output
    for more, message in (
        ([str(tmp_path / "a.json")], "must be a folder"),
        ([str(data / "sts.test.jsonl")], "--output is a file"),
        ([str(tmp_path / "out"), "--clusters", "x"], "does not go with"),
    ):
        refused = CliRunner().invoke(app, [*arguments, *more])
        assert message in str(refused.exception)
    alone = ["evaluate", bert, "--data", str(data / "beir"), "--prompts", "x.json"]
    assert "--mteb only" in str(CliRunner().invoke(app, alone).exception)


def test_an_instruction_of_the_model_is_the_usual_prompt_in_mteb_too(bert, data, tmp_path):
    shown = {"text": "red house tree: ", "template": "plain"}
    model = build_dense(DenseConfig(backbone=bert, instructions={"find": shown}))
    save_encoder(model, tmp_path / "model")
    wish = MtebWish(["local"], [str(data / "beir")], instruction="find")
    evaluate_mteb(str(tmp_path / "model"), wish, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "mteb.json").read_text())
    assert summary["prompts"]["beir"] == ["red house tree: ", ""]
    (score,) = (tmp_path / "out" / "scores").rglob("*.json")
    assert load_result(score).model.settings["instruction"] == "find"
