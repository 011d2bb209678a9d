import builtins

import pytest
from document_toys import write_pdf

from embedtrain.data.documents.blocks import assemble
from embedtrain.data.documents.pdf import read_pdf
from embedtrain.errors import UserError


def test_lines_are_joined_and_running_heads_taken_out(tmp_path):
    pages = [
        [
            "Annual report",
            f"This is page {word} of a text that was hyphen-",
            "ated and goes",
            "on.",
            f"Page {n}",
        ]
        for n, word in enumerate(("one", "two", "three", "four"), 1)
    ]
    write_pdf(tmp_path / "a.pdf", pages, title="a.pdf")
    found = read_pdf("a.pdf", tmp_path / "a.pdf")
    document = assemble(found.page)
    assert document.title == ""
    assert document.text.split("\n") == [
        f"This is page {word} of a text that was hyphenated and goes on." for word in ("one", "two", "three", "four")
    ]  # fmt: skip
    assert (found.num_pages, found.num_without_text) == (4, 0)


def test_without_pypdf_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "pypdf":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    write_pdf(tmp_path / "a.pdf", [["x"]])
    with pytest.raises(UserError, match=r"embedtrain\[pdf\]"):
        read_pdf("a.pdf", tmp_path / "a.pdf")
