"""HTML by the standard library's parser: visible text, headings, links; no menus, scripts or forms."""

import posixpath
import re
from collections import Counter
from html.parser import HTMLParser

from embedtrain.data.documents.blocks import Block, Page
from embedtrain.data.documents.document import Link
from embedtrain.data.documents.markdown import linked_file

DROPPED = frozenset(
    [
        "script",
        "style",
        "nav",
        "header",
        "footer",
        "aside",
        "noscript",
        "template",
        "svg",
        "select",
        "button",
        "iframe",
    ]
)
LINES = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "br",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
        "body",
    ]
)
"""Tags that end a line."""
PARAGRAPHS = frozenset(
    ["article", "blockquote", "dl", "div", "main", "ol", "p", "section", "table", "ul"]
)
"""Tags that end a paragraph."""
CONTENT = frozenset(("article", "main"))
"""A header inside of these is the text's own, and no menu."""
PARENTS = frozenset(("article", "body", "div", "html", "main", "section", "table", "td"))
"""Tags at whose end what is dropped within them ends too, though its own end may be missing."""
TEXTS = frozenset(("article", "main", "p"))
"""A form that holds one of these, or a heading, is a page, as some servers write it."""
SITE = re.compile(
    r"\s[|\u2013\u2014\u00b7\u2022\u00bb:-]+\s(?!.*\s[|\u2013\u2014\u00b7\u2022\u00bb:-]+\s).*"
)
"""The last part of a title, with what stands before it."""


class Reader(HTMLParser):
    """Collects the visible text of a page as blocks."""

    def __init__(self, folder: str) -> None:
        super().__init__(convert_charrefs=True)
        self.folder, self.title = folder, ""
        self.blocks: list[Block] = []
        self.links: list[Link] = []
        self._text: list[str] = []
        self._level = 0
        self._inside = {"title": 0, "pre": 0, "content": 0}
        self._dropped: list[str] = []
        self._open: Counter[str] = Counter()
        """Parents that have not ended; those within what is dropped are counted by themselves."""
        self._open_inside: Counter[str] = Counter()
        self._form: tuple[int, int] | None = None
        """Blocks and links before a form that may be no text."""
        self._link: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a tag."""
        if self._dropped:
            if tag == self._dropped[0]:
                self._dropped.append(tag)
            self._open_inside[tag] += tag in PARENTS
            return
        if tag in DROPPED and not (tag == "header" and self._inside["content"]):
            self._dropped.append(tag)
            return
        self._open[tag] += tag in PARENTS
        self._break(tag)
        if tag == "form":
            self.end()
            self._form = len(self.blocks), len(self.links)
        elif tag in TEXTS or _is_heading(tag):
            self._form = None
        if _is_heading(tag):
            self.end()
            self._level = int(tag[1])
        elif tag == "pre":
            self.end()
            self._inside["pre"] += 1
        elif tag == "a":
            self._link = (dict(attrs).get("href") or "", len(self._text))
        elif tag == "title" and not self.title:
            self._inside["title"] = 1
        self._inside["content"] += tag in CONTENT

    def handle_endtag(self, tag: str) -> None:
        """End a tag; those that were never begun are passed over."""
        if self._dropped and not self._ends_dropped(tag):
            return
        self._open[tag] -= self._open[tag] > 0
        if tag == "form":
            self._end_form()
        if tag == "a" and self._link is not None:
            self._follow(*self._link)
        if _is_heading(tag) or (tag == "pre" and self._inside["pre"]):
            self.end()
            self._level = 0
        if tag in ("pre", "title"):
            self._inside[tag] = max(0, self._inside[tag] - 1)
        self._inside["content"] = max(0, self._inside["content"] - (tag in CONTENT))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        """Take in text."""
        if self._inside["title"]:
            self.title += data
        elif not self._dropped:
            self._text.append(data if self._inside["pre"] else re.sub(r"\s+", " ", data))

    def _ends_dropped(self, tag: str) -> bool:
        """Take account of the end of a tag within what is dropped; whether it is that of a parent around it."""
        if tag == self._dropped[-1]:
            self._dropped.pop()
        elif self._open_inside[tag]:
            self._open_inside[tag] -= 1
        elif self._open[tag]:
            self._dropped.clear()
        if not self._dropped:
            self._open_inside.clear()
        return not self._dropped and tag in PARENTS

    def _end_form(self) -> None:
        """Drop a form without a paragraph or heading: it asks the reader for something."""
        self.end()
        if self._form is not None:
            del self.blocks[self._form[0] :], self.links[self._form[1] :]
        self._form = None

    def _break(self, tag: str) -> None:
        if tag in PARAGRAPHS and not self._level:
            self.end()
        elif tag in LINES:
            self._text.append("\n")

    def end(self) -> None:
        """End the block that is being read."""
        text = "".join(self._text)
        self._text.clear()
        self._link = None
        if self._inside["pre"]:
            self.blocks.append(Block(text, whole=True))
            return
        lines = (" ".join(line.split()) for line in text.split("\n"))
        if text := "\n".join(line for line in lines if line):
            joined = text.replace("\n", " ") if self._level else text
            self.blocks.append(Block(joined, self._level))

    def _follow(self, address: str, begin: int) -> None:
        words = " ".join("".join(self._text[begin:]).split())
        target = linked_file(address, self.folder)
        if words and target:
            self.links.append(Link(words, target))
        self._link = None


def read_html(name: str, text: str) -> Page:
    """Read a page of HTML; ``name`` is its path inside the corpus.

    The title is the page's without what stands behind its last separator (such as " | "), which names the site; else
    the first heading of level 1.
    """
    reader = Reader(posixpath.dirname(name))
    reader.feed(text)
    reader.close()
    reader.end()
    title = SITE.sub("", " ".join(reader.title.split())).strip()
    first = next((block.text for block in reader.blocks if block.level == 1), "")
    return Page(name, title or first, reader.blocks, tuple(reader.links))


def _is_heading(tag: str) -> bool:
    return len(tag) == 2 and tag[0] == "h" and tag[1] in "123456"
