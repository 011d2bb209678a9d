"""Probes by hand-worked values, and each of them run on tiny models."""

import json
import re
import shutil
from itertools import combinations
from unittest.mock import Mock

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.probes import perturbations
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import probe_kinds, run_probe
from embedtrain.evaluation.probes.instructions import robustness
from embedtrain.evaluation.probes.limit import make_limit
from embedtrain.evaluation.probes.long_texts import make_passkeys
from embedtrain.evaluation.probes.overlap import seen_share
from embedtrain.evaluation.probes.perturbations import RULES, contract, mistype
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


@pytest.fixture
def trained(beir, tmp_path):
    """A BEIR folder with a training split, whose first query is one of the test's."""
    folder = shutil.copytree(beir, tmp_path / "beir")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td5\t1\n")
    return folder


@pytest.mark.parametrize(
    "name", ["passkey", "needle", "space", "instructions", "perturbations", "overlap"]
)
@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_every_probe_takes_models_of_either_kind(name, kind, request, trained, cache):
    probe = probe_kinds()[name]
    data = trained / "corpus.jsonl" if name == "space" else trained
    wish = ProbeWish(data=data if probe.needs_data else None, lengths=(30,), size=6)
    subject = Subject(load_encoder(request.getfixturevalue(kind)), kind, cache)
    findings = run_probe(name, subject, wish)
    assert findings
    assert all(np.isfinite(finding.value) for finding in findings)


def test_every_probe_of_the_folder_is_found():
    assert set(probe_kinds()) == {
        *(
            "associations",
            "dapr",
            "instructions",
            "limit",
            "linguistic",
            "needle",
            "overlap",
            "paraphrases",
            "passkey",
        ),
        *(
            "perturbations",
            "query-instructions",
            "rare-labels",
            "space",
            "sticky-tokens",
            "thresholds",
            "words",
        ),
    }


def test_the_help_names_every_probe():
    (name,) = (one for one in get_command(app).commands["probe"].params if one.name == "name")
    assert set(re.findall(r"[a-z-]+", name.help)) - {"or"} == set(probe_kinds())


def test_a_passkey_document_has_its_length_and_only_its_own_key():
    queries, documents = make_passkeys(80, 5, seed=1)
    assert len(queries) == 5
    assert len(documents) == 10
    for query, document in zip(queries, documents, strict=False):
        person = query.removeprefix("what is the pass key for ").removesuffix("?")
        assert f"The pass key of {person} is " in document
        assert document.count("pass key") == 1
        assert abs(len(document.split()) - 80) <= 1
    assert make_passkeys(80, 5, seed=1)[1] == documents
    assert make_passkeys(80, 5, seed=2)[1] != documents


def test_limit_asks_for_a_thousand_different_pairs_of_46_documents():
    queries, documents, qrels = make_limit(60, seed=0)
    assert len(queries) == 1000
    assert len(set(queries.values())) == 1000
    assert len(documents) == 60
    pairs = {tuple(sorted(map(int, labels))) for labels in qrels.values()}
    assert len(pairs) == 1000
    assert pairs <= set(combinations(range(46), 2))
    for number, labels in list(qrels.items())[::97]:
        thing = queries[number].removeprefix("Who likes ").removesuffix("?")
        holders = {str(n) for n, text in enumerate(documents) if thing in text}
        assert holders == set(labels)


def test_limit_distractors_share_few_things_and_none_that_is_asked_for():
    queries, documents, _ = make_limit(246, seed=1)
    likes = [set(text.partition(" likes ")[2].rstrip(".").split(", ")) for text in documents]
    assert {len(liked) for liked in likes} == {50}
    assert len({thing for liked in likes for thing in liked}) == 1850
    asked = {text.removeprefix("Who likes ").removesuffix("?") for text in queries.values()}
    assert not any(asked & liked for liked in likes[46:])
    shared = [len(one & other) for one, other in combinations(likes[46:], 2)]
    assert np.mean(shared) == pytest.approx(50 * 50 / 850, abs=0.2)
    assert max(shared) < 15
    # A document of the core is not told by having less than 50, nor by what no query asks for.
    assert {len(asked & liked) for liked in likes[:46]} == {37, 38, 45}


def test_robustness_is_the_mean_of_the_worst_instruction_of_each_question():
    scores = {"a_1": 1.0, "a_2": 0.5, "b_1": 0.2, "b_2": 0.4}
    assert robustness({"ndcg_at_10": scores}, "ndcg_at_10") == pytest.approx((0.35, 0.525, 2))


def test_rules_change_texts_a_little_and_the_same_way_each_time():
    text = "What is the pass key, and it is not here?"
    short = contract(text, np.random.default_rng(0))
    assert short == "What's the pass key, and it isn't here?"
    once = mistype("Strasse", np.random.default_rng(3))
    assert sorted(once) == sorted("Strasse")
    assert (once[0], once[-1]) == ("S", "e")
    assert mistype("a cat", np.random.default_rng(0)) == "a cat"
    for rule in RULES:
        changed = [rule.change(text, np.random.default_rng(5)) for _ in range(2)]
        assert changed[0] == changed[1]
        assert changed[0].strip()


def test_texts_that_training_has_seen_are_counted():
    long = " ".join(f"word{n}" for n in range(20))
    test = ["Red  Cat", f"before {long} after", "new"]
    assert seen_share(test, ["red cat", f"other start {long}"]) == pytest.approx((1 / 3, 1 / 3))


def test_a_shared_query_is_found_in_a_beir_folder(trained, bert, cache):
    findings = run_probe("overlap", Subject(load_encoder(bert), "x", cache), ProbeWish(trained))
    found = {(one.setting, one.metric): one.value for one in findings}
    assert found["10 queries of test", "equal"] == pytest.approx(0.1)


def test_the_command_line_prints_and_writes_findings(bert, tmp_path):
    output = tmp_path / "p.json"
    arguments = ["probe", bert, "passkey", "--length", "30", "--size", "4", "--output", str(output)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "ndcg_at_1" in done.output
    assert json.loads(output.read_text())["findings"][0]["setting"] == "30 words"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("sticky", None, "PROBE is unknown; got 'sticky'"),
        ("space", None, r"--data is needed: a \.jsonl file"),
        ("passkey", "x", "--data is not used by passkey"),
    ],
)
def test_wishes_that_cannot_be_met_are_the_users_mistake(name, data, message, bert, tmp_path):
    wish = ProbeWish(None if data is None else tmp_path / data)
    with pytest.raises(UserError, match=message):
        run_probe(name, Subject(load_encoder(bert), "x", tmp_path), wish)


def test_a_text_of_just_13_words_can_be_shared():
    thirteen = " ".join(f"word{n}" for n in range(13))
    assert seen_share([thirteen], [f"a {thirteen} b"]) == (0, 1)
    assert seen_share([thirteen], [thirteen.replace("word12", "other")]) == (0, 0)


def test_a_typing_error_keeps_both_ends_of_the_word():
    for seed in range(20):
        once = mistype("abcdef", np.random.default_rng(seed))
        assert once != "abcdef"
        assert (once[0], once[-1]) == ("a", "f")


def test_the_largest_drop_is_that_of_the_worst_rule(trained, monkeypatch, bert, cache):
    values = iter([0.9, 0.8, 0.3, 0.7, 0.6, 0.5])
    monkeypatch.setattr(perturbations, "score_run", lambda *_: {"ndcg_at_10": {"q": next(values)}})
    subject = Subject(load_encoder(bert), "bert", cache)
    findings = run_probe("perturbations", subject, ProbeWish(data=trained))
    assert findings[-1].value == pytest.approx(0.6)


def test_documents_judged_0_are_not_among_the_relevant(trained):
    path = trained / "qrels" / "test.tsv"
    before = run_probe("overlap", Mock(Subject), ProbeWish(data=trained))
    query, document = path.read_text().splitlines()[1].split("\t")[:2]
    other = next(one for one in ("d0", "d1") if one != document)
    path.write_text(path.read_text().rstrip("\n") + f"\n{query}\t{other}\t0\n")
    assert run_probe("overlap", Mock(Subject), ProbeWish(data=trained)) == before
