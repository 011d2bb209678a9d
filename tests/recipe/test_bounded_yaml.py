"""What a user's YAML may hold: anything else is one line that names the line of the file, and nothing hangs."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedtrain.errors import UserError
from embedtrain.recipe.bounded_yaml import LARGEST_FILE, parse, read_text
from embedtrain.recipe.keys import check_keys
from embedtrain.recipe.reading import set_key, set_keys, set_stage_keys, split_override

ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]\n" for number in range(1, 60)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{number}: &a{number} {{<<: [*a{number - 1}, *a{number - 1}]}}\n" for number in range(1, 60)
)
REFUSED = {
    "a number of 400 digits": ("a: 1\nb: 1" + "0" * 400, ":2 cannot be used (a number"),
    "a number of 5000 digits": ("a: " + "1" * 5000, "digits"),
    "no number": ("a: .nan", "finite"),
    "an infinite number": ("a: -.inf", "finite"),
    "a number that overflows": ("a: 1.0e+400", "finite"),
    "a key that stands twice": ("a: 1\nb: 2\na: 3", ":3 cannot be used (the key a stands twice)"),
    "a key that stands twice in flow": ("x: {a: 1,\n a: 3}", ":2 cannot be used (the key a"),
    "open brackets": ("[" * 100_000, "64 levels"),
    "brackets": ("[" * 100_000 + "]" * 100_000, "64 levels"),
    "mappings": ("{a: " * 100_000, "64 levels"),
    "lists of a line": ("- " * 100_000, "64 levels"),
    "many values": ("[" + "1," * 30_000 + "]", "30,000 values"),
    "aliases that expand": (ALIASES, "aliases make more"),
    "merges that expand": (MERGES, "aliases make more"),
    "a list in itself": ("&a [*a]", "aliases make more"),
    "a tab": ("a:\n\tb: 1", ":2 is not valid YAML"),
    "NUL": ("a: 1\nb: \0", ":2 is not valid YAML (unacceptable character"),
    "NUL in escapes": ('a: "\\0"', "NUL"),
    "half of a pair": ('a: "\\ud800"', "surrogate"),
    "a raw half of a pair": ("a: \ud800", "unacceptable character"),
    "a number as key": ("1: 2", "put it into quotes"),
    "a list as key": ("[a]: 2", "put it into quotes"),
    "on as key": ("on: 2", "put it into quotes"),
    "code": ("a: !!python/object/apply:os.system [ls]", "has no use here"),
    "bytes": ("a: !!binary eA==", "has no use here"),
    "a set": ("a: !!set {x}", "has no use here"),
    "a number that is none": ("a: !!int x", "no number"),
    "a truth that is none": ("a: !!bool perhaps", "perhaps"),
    "a mapping that is none": ("a: !!map [1]", "expected a mapping"),
    "two documents": ("a: 1\n---\nb: 2", ":2 is not valid YAML"),
}


def refusal(call, *arguments):
    """Return the line in which something is refused; empty where it is not."""
    try:
        call(*arguments)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_names_the_line(text, said):
    with pytest.raises(UserError) as caught:
        parse("my.yaml", text)
    message = str(caught.value)
    assert message.startswith("my.yaml")
    assert said in message
    assert len(message.splitlines()) == 1
    assert len(message) < 300


def test_an_override_goes_through_the_same():
    for text, _ in REFUSED.values():
        with pytest.raises(UserError, match=r"^override trainer.seed"):
            split_override(f"trainer.seed={text}")
    assert split_override("a.b=[1, {c: no}]") == ("a.b", [1, {"c": False}])


def test_dates_stay_texts_and_aliases_and_merges_work():
    text = "a: 2024-01-01\nb: 2024-13-45\nc: &c {x: 1}\nd: {<<: *c, y: *c}\ne: 1_000"
    content, root = parse("my.yaml", text)
    expected = {"a": "2024-01-01", "b": "2024-13-45", "c": {"x": 1}, "d": {"x": 1, "y": {"x": 1}}}
    assert content == expected | {"e": 1000}
    assert root.value[3][0].start_mark.line == 3
    assert parse("my.yaml", "") == (None, None)


def test_a_byte_order_mark_is_dropped_and_other_encodings_are_named(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes("a: ä".encode("utf-8-sig"))
    assert read_text(path) == "a: ä"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes("a: ä".encode(encoding))
        with pytest.raises(UserError, match=r"is not UTF-8; got .* Save it as UTF-8"):
            read_text(path)


def test_what_is_no_small_file_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # takes no space
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_text(path)
    path.write_text("a" * LARGEST_FILE)
    assert len(read_text(path)) == LARGEST_FILE
    os.mkfifo(tmp_path / "pipe.yaml")
    for place in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(UserError, match="is a pipe or a device"):
            check_keys(place)
    with pytest.raises(UserError, match="is a folder"):
        check_keys(tmp_path)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(UserError):
        check_keys(tmp_path / "loop.yaml")


@settings(max_examples=150)
@given(
    st.text(st.sampled_from("ab: -[]{},&*!|>'\"#%@?\n\t<0.1~é\0\ud800"), max_size=40)
    | st.text(max_size=30)
)
@example("? ")
@example("%YAML 9.9\n---\na")
def test_any_text_is_read_or_refused_in_one_line(text):
    assert len(refusal(parse, "my.yaml", text).splitlines()) <= 1


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text("ab c:#'1-", max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", min_size=1), inner)
        ),
        max_leaves=8,
    )
)
def test_what_was_written_is_read(content):
    assert parse("my.yaml", yaml.safe_dump(content))[0] == content


KEYS = st.text(st.sampled_from("ab.=[]{}0 \n\0"), max_size=12)


@settings(max_examples=150)
@given(KEYS, st.lists(st.tuples(KEYS, st.sampled_from(["1", "x", "{a: 1}", "[", "null"]))))
def test_any_override_is_set_or_refused(word, pairs):
    stages = {"stages": [{"name": "a", "train": {}}, {"name": "b"}, {"name": [1], "x": 2}, 3, None]}
    for one in (word, *("=".join(pair) for pair in pairs)):
        assert len(refusal(set_keys, {"a": {"b": 1}, "b": [1]}, [one]).splitlines()) <= 1
        assert len(refusal(set_stage_keys, dict(stages), [one]).splitlines()) <= 1


def test_a_key_of_too_many_parts_is_refused():
    with pytest.raises(UserError, match="nested too deeply"):
        set_key({}, ".".join("a" * 100_000), 1)
