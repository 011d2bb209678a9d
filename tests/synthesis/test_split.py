import subprocess
import sys
from random import Random

import pytest
from document_toys import paragraph
from synthesis_toys import chunk, row

from embedtrain.synthesis.settings import SplitConfig
from embedtrain.synthesis.split import (
    check_leaks,
    drop_leaks,
    drop_trivial,
    leaking,
    split_documents,
)

PRINTED = """
from embedtrain.data.draw import number
print([number(0, f"d{n}") % 1000 for n in range(20)])
"""


def corpus(number, seed=0):
    random = Random(seed)
    return [chunk(paragraph(random, 8), f"d{n}") for n in range(number)]


def split(chunks, cache, **shares):
    return split_documents(chunks, SplitConfig(**shares), 0, cache)


def test_another_document_moves_no_old_one_and_order_is_nothing(tmp_path):
    chunks = corpus(200)
    few, all_ = split(chunks[:150], tmp_path).splits, split(chunks[::-1], tmp_path).splits
    assert all(all_[name] == found for name, found in few.items())
    counts = [list(all_.values()).count(name) for name in ("train", "dev", "test")]
    assert counts[0] > 140
    assert min(counts) >= 8


def test_near_copies_stay_together(tmp_path):
    chunks = corpus(60)
    copies = [chunk(one.text + " end", f"z{one.id}") for one in chunks]
    found = split(chunks + copies, tmp_path)
    assert split((chunks + copies)[::-1], tmp_path) == found
    for one in chunks:
        assert found.splits[one.id] == found.splits[f"z{one.id}"]
        assert found.clusters[f"z{one.id}"] == one.id


def test_no_split_of_few_documents_is_empty(tmp_path):
    for number in (3, 5, 9):
        assert set(split(corpus(number), tmp_path).splits.values()) == {"train", "dev", "test"}
    assert "test" not in split(corpus(3), tmp_path, test=0).splits.values()


def test_the_seed_of_hashes_of_strings_changes_no_split():
    said = {
        subprocess.run(
            [sys.executable, "-c", PRINTED], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(said) == 1


def test_a_leak_is_seen_and_can_be_dropped():
    text = paragraph(Random(0), 8)
    rows = [
        row("q of train", text + " more", name="a"),
        row("q of test", text, name="b"),
        row("q alone", paragraph(Random(1), 8), name="c"),
    ]
    splits = {"a": "train", "b": "test", "c": "train"}
    assert check_leaks(rows, splits)["train_positives_like_held_out"] == 1
    drop_leaks(rows, splits)
    assert [one.taken_by for one in rows] == ["leak", "", ""]
    assert check_leaks(rows, splits)["train_positives_like_held_out"] == 0


def test_a_text_is_compared_with_every_held_out_one_and_so_is_each_text_of_a_joined_row():
    words = paragraph(Random(0), 30).split()

    def cut(start):
        return " ".join(words[start : start + 200])

    # The second held-out text nearly repeats the first, and the training text only the second.
    near = [row("q1", cut(0), name="a"), row("q2", cut(16), name="b")]
    train = [row("q3", cut(32), name="c"), row("q4", paragraph(Random(1), 30), name="e")]
    train[1].also.append(row("q4", cut(32), name="f"))
    alone = row("q5", paragraph(Random(2), 30), name="g")
    splits = {"a": "dev", "b": "dev", "c": "train", "e": "train", "g": "train"}
    rows = [*near, *train, alone]
    assert leaking([cut(32)], [cut(0)]) == [False]
    assert check_leaks(rows, splits)["train_positives_like_held_out"] == 2
    drop_leaks(rows, splits)
    assert [one.taken_by for one in rows] == ["", "", "leak", "leak", ""]


def test_shared_queries_are_told_with_examples():
    rows = [
        row("how is it rinsed", paragraph(Random(n), 8), name=name) for n, name in enumerate("ab")
    ]
    found = check_leaks(rows, {"a": "train", "b": "dev"})
    assert found["train_queries_like_held_out"] == 1
    assert found["too_many"]
    assert found["examples"] == ["how is it rinsed"]


@pytest.mark.parametrize("others", [29, 30])
def test_held_out_crops_are_taken_where_enough_else_is_left(others):
    rows = [row(f"q{n}", name="b") for n in range(others)]
    crops = [row("crop", maker="crop", name=name) for name in ("a", "b")]
    drop_trivial(rows + crops, {"a": "train", "b": "dev"})
    assert [one.taken_by for one in crops] == ["", "trivial" if others == 30 else ""]
    assert all(one.kept for one in rows)
