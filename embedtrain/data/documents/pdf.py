"""Text of PDF files; pages that are pictures are counted, not read."""

import re
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.documents.blocks import Block, Page, frequent
from embedtrain.errors import missing_extra

FEWEST_CHARACTERS = 50
"""A page with fewer is a picture."""
HYPHENATED = re.compile(r"(?<=[^\W\d_])[-\u00ad]\n(?=[^\W\d_A-Z])")
WRAPPED = re.compile(r"(?<![.!?:;\n])\n(?=[^\W\d_A-Z])")
"""A line that goes on in the next one: no stop before, no capital after."""
EDGE = 2
"""Lines at the top and the bottom of a page that may be a running head."""


@dataclass(frozen=True)
class PdfPages:
    """What a PDF file holds."""

    page: Page
    num_pages: int
    num_without_text: int


def read_pdf(name: str, path: Path) -> PdfPages:
    """Read the text of a PDF file; ``name`` is its path inside the corpus.

    Raises:
        UserError: If pypdf is not installed.
        Exception: Whatever pypdf raises at a damaged or locked file.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        raise missing_extra("pypdf", "pdf", "to read PDF files") from None
    with path.open("rb") as file:
        reader = PdfReader(file)
        pages = [page.extract_text() or "" for page in reader.pages]
        told = (reader.metadata and reader.metadata.title) or ""
    lines = _without_running_heads([page.split("\n") for page in pages])
    text = "\n".join("\n".join(page) for page in lines)
    text = WRAPPED.sub(" ", HYPHENATED.sub("", text))
    title = "" if _is_file_name(told.strip(), path) else told.strip()
    few = sum(len(page.strip()) < FEWEST_CHARACTERS for page in pages)
    return PdfPages(Page(name, title, [Block(text)]), len(pages), few)


def _without_running_heads(pages: list[list[str]]) -> list[list[str]]:
    """Take out first and last lines that many pages share, whatever the page number in them."""
    edges = [{_shape(line) for line in (*page[:EDGE], *page[-EDGE:])} for page in pages]
    heads = frequent(edges, len(pages))

    def kept(page: list[str]) -> list[str]:
        last = len(page) - EDGE
        return [
            line
            for number, line in enumerate(page)
            if EDGE <= number < last or _shape(line) not in heads
        ]

    return [kept(page) for page in pages]


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", line.strip())


def _is_file_name(title: str, path: Path) -> bool:
    return title.endswith((".doc", ".docx", ".tex", ".dvi", ".pdf", ".indd")) or title == path.stem
