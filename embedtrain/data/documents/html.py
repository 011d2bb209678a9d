"""HTML by the standard library's parser: visible text, headings, links; no menus, scripts or forms."""

import posixpath
import re
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
        "form",
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
SEPARATOR = re.compile(r"\s[|\u2013\u2014\u00b7\u2022\u00bb:-]+\s|::")


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
        self._link: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a tag."""
        if self._dropped:
            if tag == self._dropped[0]:
                self._dropped.append(tag)
            return
        if tag in DROPPED and not (tag == "header" and self._inside["content"]):
            self._dropped.append(tag)
            return
        self._break(tag)
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
        if self._dropped:
            if tag == self._dropped[-1]:
                self._dropped.pop()
            return
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

    The title is the page's, up to the first separator (such as " | "), else the first heading of level 1.
    """
    reader = Reader(posixpath.dirname(name))
    reader.feed(text)
    reader.close()
    reader.end()
    title = SEPARATOR.split(" ".join(reader.title.split()))[0].strip()
    first = next((block.text for block in reader.blocks if block.level == 1), "")
    return Page(name, title or first, reader.blocks, tuple(reader.links))


def _is_heading(tag: str) -> bool:
    return len(tag) == 2 and tag[0] == "h" and tag[1] in "123456"
