"""A model takes the place of its start only where held-out queries show that it is better."""

import json
from dataclasses import replace

import numpy as np
import pytest

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.evaluation.measures.gain import FEW_QUERIES, decide, show_gain, widened
from embedtrain.evaluation.measures.statistics import PairedComparison, compare_paired
from embedtrain.models.build import load_encoder
from embedtrain.workflows.gate import REFUSED, VERDICT, GateStage, Judged, gate, read_verdict


def gained(difference, half, num=100):
    return PairedComparison(difference, difference - half, difference + half, 0.01, 0.02, num)


def verdict(paired, guards=None, **settings):
    asked = {"queries": "held-out", "max_loss": 0.01, **settings}
    return decide(paired, 0.5, guards or {}, **asked)


@pytest.mark.parametrize(
    ("paired", "ships", "reason"),
    [
        (gained(0.05, 0.02), True, None),
        (gained(0.05, 0.05), False, "chance explains its gain"),
        (gained(-0.05, 0.02), False, "worse than its start"),
        (gained(0.0, 0.0), False, "as well as its start"),
        (gained(0.05, 0.01, num=5), False, "too few to show a gain"),
        (gained(0.05, 0.045, num=20), False, "chance explains its gain"),  # once widened
    ],
)
def test_only_an_interval_above_zero_ships(paired, ships, reason):
    found = verdict(paired)
    assert found.ships is ships
    assert reason is None if ships else reason in found.reasons[0]


def test_a_gain_that_forgets_is_refused_and_a_mean_ships_where_that_is_asked():
    lost = {"other (test)": gained(-0.03, 0.01)}
    found = verdict(gained(0.05, 0.02), lost)
    assert not found.ships
    assert "on other (test) it lost 0.030" in found.reasons[0]
    assert verdict(gained(0.05, 0.02), {"other": gained(-0.005, 0.01)}).ships
    assert verdict(gained(0.05, 0.06), ship="point").ships


def test_few_queries_widen_the_interval_and_are_said():
    differences = np.random.default_rng(0).normal(0.05, 0.1, 20)
    paired = compare_paired(differences, np.zeros(20))
    wide = widened(paired)
    assert wide.low < paired.low < paired.difference < paired.high < wide.high
    assert "fewer than 30" in verdict(paired).warnings[0]
    assert "widened interval" in show_gain(wide)
    assert "95 %" not in show_gain(wide)
    assert "95 % interval" in show_gain(paired)
    enough = replace(paired, num=FEW_QUERIES)
    assert widened(enough) == enough


def test_the_start_becomes_the_result_where_the_model_is_no_better(bert, beir, tmp_path):
    work = GateStage(model=str(bert), base=str(bert), path=str(beir), synthetic=True)
    gate(work, tmp_path / "gate")
    facts = read_verdict(tmp_path / "gate")
    assert facts["ships"] is False
    assert "ranks the synthetic queries as well as its start" in facts["decision"]
    assert json.loads((tmp_path / "gate" / REFUSED).read_text()) == facts
    weights = load_encoder(str(tmp_path / "gate/model")).state_dict()
    for name, values in load_encoder(str(bert)).state_dict().items():
        assert values.equal(weights[name])


def test_a_better_model_is_exported_and_nothing_is_measured_twice(
    bert, beir, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "embedtrain.workflows.gate.decide", lambda *_, **__: verdict(gained(1.0, 0.0))
    )
    other = Judged(path=str(beir))
    work = GateStage(
        model=str(bert), base=str(bert), path=str(beir), guards=(other,), also=(other,)
    )
    gate(work, tmp_path / "gate")
    assert not (tmp_path / "gate" / REFUSED).exists()
    for part in ("test", "guard-1", "also-1"):
        assert (tmp_path / "gate" / part / "after.json").is_file()
    first = read_verdict(tmp_path / "gate")
    (tmp_path / "gate" / VERDICT).unlink()
    monkeypatch.setattr(
        "embedtrain.workflows.evaluate.tasks.evaluate_task", lambda *_: pytest.fail("again")
    )
    gate(work, tmp_path / "gate")
    assert read_verdict(tmp_path / "gate") == first
    assert first["ships"] is True


def test_fewer_documents_are_searched_where_that_is_asked(bert, beir, tmp_path):
    whole = load_retrieval_task(beir, "test")
    answers = {name for found in whole.qrels.values() for name in found}
    rows = tmp_path / "rows.jsonl"
    seen = {"query": whole.queries[0].upper(), "positive": "x"}
    rows.write_text(json.dumps(seen) + "\n", encoding="utf-8")
    settings = {"num_documents": 1, "train": str(rows)}
    work = GateStage(model=str(bert), base=str(bert), path=str(beir), **settings)
    gate(work, tmp_path / "gate")
    part = load_retrieval_task(tmp_path / "gate/test/searched" / beir.name, "test")
    assert set(part.document_ids) == answers < set(whole.document_ids)
    assert part.qrels == whole.qrels
    assert part.name == whole.name
    facts = read_verdict(tmp_path / "gate")
    assert facts["train_overlap"]["equal_queries"] == pytest.approx(1 / len(whole.queries))
    assert facts["searched"] == {"test": {"documents": len(answers), "of": len(whole.documents)}}


def test_queries_that_decided_before_are_said(bert, late_interaction, beir, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    for number, model in enumerate((bert, late_interaction, bert)):
        work = GateStage(model=str(model), base=str(bert), path=str(beir))
        found = read_verdict(gate(work, tmp_path / f"gate-{number}"))
        assert ("decided about 2 models" in " ".join(found["warnings"])) == (number > 0)
