"""Markdown, line by line: headings, paragraphs, code kept whole, links to other files of the folder."""

import posixpath
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from embedtrain.data.documents.blocks import Block, Page
from embedtrain.data.documents.document import Link

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?[ \t]*#*[ \t]*")
UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s+\S.*")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
IMAGE = re.compile(r"!\[([^\]]*)\](?:\([^()\s]*(?:\([^()]*\)[^()\s]*)?(?:\s[^()]*)?\)|\[[^\]]*\])")
LINK = re.compile(r"\[([^\[\]]+)\](?:\(<?([^()\s<>]*)>?(?:\s[^()]*)?\)|\[[^\]]*\])")
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
EMPHASIS = re.compile(r"(?<![\w*])([*_])(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")
FRONT = re.compile(r"([A-Za-z_][\w-]*):[ \t]*(.*)")


@dataclass
class Scanner:
    """Collects the blocks of a file, one line after the other."""

    folder: str
    """Of the file, inside the corpus."""
    blocks: list[Block] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _fence: str = ""

    def read(self, line: str) -> None:
        """Take in a line."""
        if self._fence:
            self._read_code(line)
        elif fence := FENCE.match(line):
            self.end()
            self._fence = fence[1]
        elif heading := HEADING.fullmatch(line):
            self.end()
            self.blocks.append(Block(self._clean(heading[2] or ""), len(heading[1])))
        elif len(self._lines) == 1 and (underline := UNDERLINE.fullmatch(line)):
            text = self._clean(self._lines.pop())
            self.blocks.append(Block(text, 1 if underline[1][0] == "=" else 2))
        elif not line.strip():
            self.end()
        elif not DEFINITION.fullmatch(line):
            self._lines.append(line)

    def _read_code(self, line: str) -> None:
        closing = FENCE.match(line)
        if (
            closing
            and closing[1].startswith(self._fence)
            and not line.strip().strip(self._fence[0])
        ):
            self.end()
            self._fence = ""
        else:
            self._lines.append(line)

    def end(self) -> None:
        """End the block that is being read."""
        if self._lines:
            text = "\n".join(self._lines)
            self.blocks.append(Block(text, whole=True) if self._fence else Block(self._clean(text)))
            self._lines.clear()

    def _clean(self, text: str) -> str:
        """Return text without marks, and keep its links."""

        def follow(link: re.Match[str]) -> str:
            if target := linked_file(link[2] or "", self.folder):
                self.links.append(Link(" ".join(_plain(link[1]).split()), target))
            return link[1]

        return _plain(LINK.sub(follow, IMAGE.sub(r"\1", text)))


def read_markdown(name: str, text: str) -> Page:
    """Read a Markdown file; ``name`` is its path inside the corpus.

    A block between ``---`` at the very beginning is metadata. The title is that of the metadata, or the first
    heading of level 1.
    """
    lines = re.sub(r"\r\n?", "\n", text).split("\n")
    metadata, begin = _front_matter(lines)
    scanner = Scanner(posixpath.dirname(name))
    for line in _without_comments(lines[begin:]):
        scanner.read(line)
    scanner.end()
    first = next((block.text for block in scanner.blocks if block.level == 1), "")
    title = metadata.get("title") or first
    return Page(name, title, scanner.blocks, tuple(scanner.links), metadata)


def linked_file(address: str, folder: str) -> str | None:
    """Return the path inside the corpus that a link of a file in ``folder`` leads to; None if it leads elsewhere."""
    path = unquote(address.partition("#")[0].partition("?")[0])
    if not path or ":" in path or path.startswith("//"):
        return None
    joined = path.lstrip("/") if path.startswith("/") else posixpath.join(folder, path)
    found = posixpath.normpath(joined)
    return None if found.startswith("..") else found


def _front_matter(lines: list[str]) -> tuple[dict[str, str], int]:
    """Return simple values of the metadata, and the line after it."""
    if lines[0].strip() != "---":
        return {}, 0
    last = next((n for n, line in enumerate(lines[1:], 1) if line.strip() in ("---", "...")), None)
    if last is None:
        return {}, 0
    found = filter(None, map(FRONT.fullmatch, lines[1:last]))
    return {one[1]: one[2].strip().strip("\"'") for one in found if one[2].strip()}, last + 1


def _without_comments(lines: list[str]) -> list[str]:
    """Blank out HTML comments outside of code."""
    if not any("<!--" in line for line in lines):
        return lines
    kept: list[str] = []
    fence, inside = "", False
    for line in lines:
        mark = None if inside else FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        if fence:
            kept.append(line)
            continue
        line = COMMENT.sub("", line)  # noqa: PLW2901
        if inside:
            before, end, line = line.partition("-->")  # noqa: PLW2901
            inside = not end
        before, begin, _ = line.partition("<!--")
        inside = inside or bool(begin)
        kept.append(before)
    return kept


def _plain(text: str) -> str:
    """Take out tags and marks of emphasis, but not within code."""
    parts, last = [], 0
    for code in CODE.finditer(text):
        parts += [_unmarked(text[last : code.start()]), code[2].strip()]
        last = code.end()
    return "".join([*parts, _unmarked(text[last:])])


def _unmarked(text: str) -> str:
    return EMPHASIS.sub(r"\2", STRONG.sub(r"\2", TAG.sub("", text)))
