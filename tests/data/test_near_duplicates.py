import random

import pytest

from embedtrain.data.near_duplicates import jaccard, near_duplicates, shingle_hashes


def brute_force(texts, threshold):
    sets = []
    for text in texts:
        words = text.lower().split()
        sets.append({tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))})
    originals = []
    for i, one in enumerate(sets):
        kept = [j for j in range(i) if originals[j] == j]
        near = (j for j in kept if len(one & sets[j]) >= threshold * len(one | sets[j]))
        originals.append(next(near, i))
    return originals


def test_it_agrees_with_comparing_all_pairs():
    chooser = random.Random(0)
    texts = []
    for _ in range(60):
        words = [chooser.choice("abcdefghijklmnop") * 3 for _ in range(40)]
        for _ in range(3):
            texts.append(" ".join(words))
            words[chooser.randrange(40)] = "changed"
    chooser.shuffle(texts)
    found, expected = near_duplicates(texts), brute_force(texts, 0.8)
    assert sum(row != original for row, original in enumerate(expected)) > 60
    # Every pair here has a similarity of about 0.85 or 0.74; MinHash misses one in a thousand of the first.
    assert found == expected


def test_of_equal_texts_the_first_stays():
    assert near_duplicates(["one two three four", "x", "One, two; three four!", "x y"]) == [
        0,
        1,
        0,
        3,
    ]


def test_texts_that_differ_in_one_word_of_ten_are_different():
    words = ["applies", "a", "pooling", "over", "an", "input", "signal", "of", "several", "planes"]
    other = [*words[:2], "one", *words[3:]]
    assert near_duplicates([" ".join(words), " ".join(other)]) == [0, 1]


def test_the_result_is_the_same_in_every_run():
    texts = [f"the word number {i} and {i + 1} and {i // 2}" for i in range(50)]
    assert near_duplicates(texts) == near_duplicates(texts)


def test_nothing_repeats_nothing():
    assert near_duplicates([]) == []
    assert near_duplicates(["", "!"]) == [0, 0]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [("a b c d", "a b c d", 1.0), ("a b c d", "b c d e", 1 / 3), ("a b c", "x y z", 0.0)],
)
def test_jaccard_counts_shared_triples_of_words(left, right, expected):
    assert jaccard(shingle_hashes(left), shingle_hashes(right)) == pytest.approx(expected)


def test_a_similarity_of_just_the_threshold_is_a_repetition():
    words = [f"word{n}" for n in range(11)]
    texts = [" ".join(words), " ".join([*words[:-1], "other"])]  # 8 of 10 in common
    assert jaccard(*map(shingle_hashes, texts)) == 0.8
    assert near_duplicates(texts) == [0, 0]
