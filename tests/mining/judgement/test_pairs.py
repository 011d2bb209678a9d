from judge_toys import write_mined

from embedtrain.mining.judgement.pairs import passage, select_pairs
from embedtrain.mining.judgement.rows import read_mined
from embedtrain.mining.judgement.settings import JudgeConfig


def select(folder, labels=None, **settings):
    return select_pairs(
        read_mined(folder), JudgeConfig(judge={"model": "m"}, **settings), labels or {}
    )


def test_what_was_kept_out_close_negatives_and_some_positives_are_asked(tmp_path):
    found = select(write_mined(tmp_path / "mined", 300), positives=0.5)
    kinds = {}
    for pair in found.pairs:
        kinds.setdefault(pair.role, set()).add(pair.document_id.rstrip("0123456789"))
    assert kinds["rejected"] == {"hidden", "maybe", "hard"}
    assert kinds["negative"] == {"close"}
    assert 110 < len(found.positives) < 190
    assert found.num_queries == 300
    assert len(found.random) == 200
    assert all(pair.query.split()[1] != pair.document.split()[-1] for pair in found.random)


def test_at_least_a_hundred_positives_are_asked_where_there_are_as_many(tmp_path):
    assert len(select(write_mined(tmp_path / "many", 300)).positives) == 100
    assert len(select(write_mined(tmp_path / "few", 30)).positives) == 30
    assert len(select(tmp_path / "few", positives=0).positives) == 0
    written = select(tmp_path / "many", written=True)
    assert sum(pair.role == "positive" for pair in written.pairs) == 300
    assert len(written.positives) == 100


def test_depth_and_labels_of_people_leave_pairs_out(tmp_path):
    folder = write_mined(tmp_path / "mined", 3)
    labels = {("q0", "hidden0"): 0, ("q1", "close1"): 1}
    keys = {pair.key for pair in select(folder, labels, depth=2).pairs}
    assert ("q0", "maybe0") in keys
    assert ("q0", "hard0") not in keys
    assert not keys & labels.keys()


def test_a_budget_buys_the_most_doubtful_pairs_first(tmp_path):
    pairs = select(write_mined(tmp_path / "mined", 4), tokens=100).pairs
    names = [pair.document_id.rstrip("0123456789") for pair in pairs]
    assert names == sorted(names, key=["maybe", "hidden", "hard", "close", "positive"].index)


def test_a_passage_ends_with_a_sentence_or_after_its_words():
    text = "One two three. Four five six. Seven eight nine ten eleven."
    assert passage(text, 30) == text
    assert passage(text, 8) == "One two three. Four five six."
    assert passage("one two three four five", 3) == "one two three"
