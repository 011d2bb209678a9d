"""What is counted and shown of mined queries."""

import json

from mining_toys import make_task

from embedtrain.mining.miner import MinedQuery, Negative, NewPositive, Scored, Suspect
from embedtrain.mining.output import MiningFolder, Tally, join_parts, write_part
from embedtrain.mining.report import render_suspects
from embedtrain.mining.settings import MiningConfig


def mined(name: str, positive: float, suspect: float, negatives: tuple[str, ...] = ("d3",)):
    return MinedQuery(
        qid=name,
        pos=[Scored(id="d0", score=positive)],
        new_pos=[],
        doubted=[],
        neg=[Negative(id=one, score=0.1, rank=1, source="dense", ce=None) for one in negatives],
        dropped={},
        suspects=[Suspect(id="d1", score=suspect, reason="score")],
    )


def test_a_repeated_negative_does_not_make_a_query_less_short():
    tally = Tally()
    tally.add(mined("q0", 1.0, 0.9, ("d2", "d3", "d2")), wanted=3)
    tally.add(mined("q1", 1.0, 0.9, ("d2", "d3", "d4")), wanted=3)
    assert tally.report()["short_ratio"] == 0.5


def test_the_most_suspicious_comes_first_measured_from_its_own_positive():
    task, _ = make_task([[1.0, 0.5], [0.5, 1.0]], [[0], [1]])
    page = render_suspects([mined("q0", 0.85, 0.9), mined("q1", 0.2, 0.5)], task)
    assert page.index("Query `q1`") < page.index("Query `q0`")


def test_the_suspects_that_are_shown_do_not_depend_on_the_order_of_queries(tmp_path):
    task, _ = make_task([[0.1] * 5] * 12, [[0]] * 12)
    queries = [mined(f"q{number}", 1.0, 0.9) for number in range(12)]
    shown = []
    for name, part in (("there", queries), ("back", queries[::-1])):
        folder = MiningFolder(tmp_path / name)
        write_part(folder.part(0), part)
        found = join_parts(folder, 1, MiningConfig(num_suspects=3), task)[1]
        shown.append({query["qid"] for query in found})
    assert shown[0] == shown[1]
    assert len(shown[0]) == 3


def test_new_positives_become_positives_of_the_rows_and_are_told_apart(tmp_path):
    task, _ = make_task([[0.9, 0.8, 0.7, 0.1]], [[0]])
    query = mined("q0", 0.9, 0.2) | {
        "new_pos": [NewPositive(id="d2", score=0.7, ce=0.95)],
        "doubted": ["d0"],
    }
    check = {"model": "m", "positive": 0.9}
    for config, marked in ((MiningConfig(cross_encoder=check), True), (MiningConfig(), False)):
        folder = MiningFolder(tmp_path / str(marked))
        write_part(folder.part(0), [query])
        tally, _ = join_parts(folder, 1, config, task)
        row = json.loads(folder.training.read_text())
        line = json.loads(folder.negatives.read_text())
        assert ("positive_sources" in row) is ("new_pos" in line) is marked
    assert row["positive_ids"] == ["d0", "d2"]
    assert row["scores"] == [0.9, 0.7, 0.1]
    report = tally.report()
    assert (report["num_new_positives"], report["num_doubted_positives"]) == (1, 1)
