from embedtrain.data.documents.blocks import assemble
from embedtrain.data.documents.markdown import linked_file, read_markdown

PAGE = """---
title: "The guide"
author: somebody
---
Intro with **bold**, _slanted_ and `code_with_marks*`.

# Install <!-- hidden
still hidden --> now

See [the *other* page](../b/other.md#part "a title") and ![a picture](x.png).

Under
-----
```python
# no heading

x = "[no](link.md)"
```
[ref]: https://example.org
"""


def read(text, name="a/page.md"):
    return assemble(read_markdown(name, text))


def test_front_matter_is_metadata_and_gives_the_title():
    document = read(PAGE)
    assert document.title == "The guide"
    assert document.metadata == {"title": "The guide", "author": "somebody"}
    assert "author" not in document.text


def test_headings_stand_where_they_say():
    document = read(PAGE)
    assert [(one.level, one.text) for one in document.headings] == [
        (1, "Install"),
        (2, "Under"),
    ]
    assert all(document.text[one.start : one.end] == one.text for one in document.headings)


def test_a_mark_within_code_is_no_heading_and_code_stays_whole():
    document = read(PAGE)
    ((start, end),) = document.whole
    assert document.text[start:end] == '# no heading\n\nx = "[no](link.md)"'


def test_marks_comments_and_addresses_are_no_text():
    text = read(PAGE).text
    assert "Intro with bold, slanted and code_with_marks*." in text
    assert "See the other page and a picture." in text
    assert not any(word in text for word in ("hidden", "example.org", "x.png", "```"))


def test_links_lead_to_files_of_the_corpus():
    assert [(one.text, one.target) for one in read(PAGE).links] == [
        ("the other page", "b/other.md")
    ]


def test_links_elsewhere_are_none():
    for address in ("https://a.org/b", "#part", "mailto:a@b.org", "../../out.md", "//host/x"):
        assert linked_file(address, "a") is None
    assert linked_file("/root.md", "a") == "root.md"
    assert linked_file("c%20d.md?x=1", "a") == "a/c d.md"


def test_without_front_matter_the_first_heading_is_the_title():
    assert read("## small\n\n# Large #\n\ntext").title == "Large"
    unclosed = read("---\nnever closed\n\ntext")
    assert (unclosed.title, unclosed.text[-4:]) == ("", "text")
