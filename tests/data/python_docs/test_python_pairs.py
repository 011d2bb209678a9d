from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from embedtrain.data.python_docs.docstrings import DocumentedObject
from embedtrain.data.python_docs.python_pairs import (
    MAX_DOCUMENTS_PER_QUERY,
    PythonPair,
    curate,
    distinct_pairs,
    split_packages,
)

MANY = {f"package-{i}": 40 + i for i in range(60)}


def pair(package, query, text, name="f"):
    name = f"{package}.{name}"
    return PythonPair(package, DocumentedObject(name, query, f"{name}(x)\n{text}"))


def numbered(package, count, start=0):
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()  # noqa: SIM905
    pairs = []
    for i in range(start, start + count):
        said = " ".join(f"{words[int(digit)]}{package}" for digit in f"{i:06d}")
        pairs.append(
            pair(package, f"query about {said}", f"document that tells of {said}", f"f{i}")
        )
    return pairs


def test_a_copy_in_another_module_is_dropped():
    first = pair("a", "Sum all the rows", "By columns.", "one.f")
    copies = [
        pair("b", "Sum all the rows.", "By  columns", "two.f"),
        pair("a", "Sum all the rows", "By hand"),
    ]
    assert distinct_pairs([first, *copies]) == [first, copies[1]]


def test_a_query_with_many_documents_says_nothing():
    few = [pair("a", "Sum it", f"Text {i}") for i in range(MAX_DOCUMENTS_PER_QUERY)]
    many = [pair("a", "Fit it", f"Text {i}") for i in range(MAX_DOCUMENTS_PER_QUERY + 1)]
    assert distinct_pairs(few + many) == few


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 5000), max_size=40))
def test_every_package_gets_one_split_and_too_little_is_held_out_rather_than_too_much(num_pairs):
    splits = split_packages(num_pairs)
    assert splits.keys() == num_pairs.keys()
    held_out = sum(num_pairs[name] for name, split in splits.items() if split != "train")
    assert held_out <= 0.3 * sum(num_pairs.values())


def test_a_tenth_or_more_of_the_pairs_is_held_out_by_package():
    splits = split_packages(MANY)
    sizes = Counter(dict.fromkeys(("train", "validation", "test"), 0))
    for package, split in splits.items():
        sizes[split] += MANY[package]
    assert 0.1 < sizes["test"] / sum(MANY.values()) < 0.26
    assert 0 < sizes["validation"] < sizes["test"] < sizes["train"]


def test_the_split_does_not_depend_on_the_order_of_the_packages():
    assert split_packages(dict(reversed(MANY.items()))) == split_packages(MANY)


def test_no_package_is_most_of_the_test():
    assert split_packages({**MANY, "huge": 100_000})["huge"] == "train"


def test_training_holds_no_package_query_or_content_of_the_test():
    packages = [f"p{i}" for i in range(30)]
    pairs = [each for package in packages for each in numbered(package, 12)]
    split_of = split_packages(Counter(each.package for each in pairs))
    held = next(package for package, split in split_of.items() if split == "test")
    train = next(package for package, split in split_of.items() if split == "train")
    original = next(each for each in pairs if each.package == held).documented
    leaks = [
        pair(train, original.query.upper(), "Another text about it.", "same_query"),
        pair(train, f"A {original.query}", original.document.partition("\n")[2], "near_content"),
    ]
    curated = curate(leaks + pairs)
    by_package = {split: {each.package for each in found} for split, found in curated.items()}
    assert not by_package["train"] & (by_package["test"] | by_package["validation"])
    names = {each.documented.name for each in curated["train"]}
    assert not names & {leak.documented.name for leak in leaks}
    assert original.name in {each.documented.name for each in curated["test"]}


def test_the_same_query_may_have_several_documents_in_one_split():
    pairs = [
        pair("a", "Sum the rows of a table", "With one loop over the rows, one at a time."),
        pair("a", "Sum the rows of a table", "By a tree of partial sums, which rounds less."),
    ]
    assert curate(pairs)["train"] == pairs
