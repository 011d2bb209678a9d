"""The one door to a corpus as people keep it: a folder or a file becomes documents, in a fixed order."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedtrain.data.documents.blocks import Page, assemble, normalise, without_boilerplate
from embedtrain.data.documents.document import Document, Heading
from embedtrain.data.documents.html import read_html
from embedtrain.data.documents.markdown import read_markdown
from embedtrain.data.documents.pdf import read_pdf
from embedtrain.data.documents.table import FORMATS, WithoutTextError, read_rows
from embedtrain.errors import UserError
from embedtrain.outside import reading
from embedtrain.progress import console, progress_bar
from embedtrain.section import Section

PLAIN = frozenset((".txt", ".text", ".rst", ""))
MARKUP: dict[str, Callable[[str, str], Page]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
LONGEST_TITLE = 80
"""Characters of a first line that may be a title."""
MADE = ("corpus.jsonl", "report.json", "requests")
"""A folder below the corpus that holds one of these beside ``synth.yaml`` is the output of ``embedtrain synth``."""
BEIR = ("corpus.jsonl", "corpus.jsonl.gz")
"""A folder that holds one is read from it alone: its other files are queries and judgments."""


class Reading(Section):
    """What was found in a corpus, for the report."""

    files: dict[str, int]
    """Files that were read, by their ending."""
    skipped: dict[str, int]
    """Files that were not, by their ending, or ``binary`` and ``unreadable``."""
    empty: int
    """Documents without text, which are left out."""
    boilerplate_lines: int
    """Different lines that were taken out of HTML pages, for many of these share them."""
    pdf_pages: int
    pdf_pages_without_text: int


@dataclass
class Reader:
    """Reads files into documents, and counts."""

    encoding: str = "utf-8"
    is_chosen: bool = False
    """Whether who reads lets another encoding be given."""
    files: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    pdf_pages: int = 0
    pdf_pages_without_text: int = 0
    found: list[Document | Page] = field(default_factory=list)
    without_text: WithoutTextError | None = None
    """Of a table that was left out; the mistake where nothing else is there."""

    def read(self, name: str, path: Path) -> None:
        """Read a file, or count it as skipped; ``name`` is its path inside the corpus."""
        ending = _ending(path)
        if ending in FORMATS:
            try:
                self.found.extend(list(read_rows(name, path)))
            except WithoutTextError as error:
                self.without_text = error
                self.skipped[f"{ending} without a text"] += 1
                return
        elif ending == ".pdf":
            if not self._read_pdf(name, path):
                return
        elif ending in PLAIN or ending in MARKUP:
            text = self._decode(path, strict=ending != "")
            if text is None:
                return
            self.found.append(
                MARKUP[ending](name, text) if ending in MARKUP else _plain(name, text)
            )
        else:
            self.skipped[ending] += 1
            return
        self.files[ending or "none"] += 1

    def _decode(self, path: Path, *, strict: bool) -> str | None:
        with reading(path):
            content = path.read_bytes()
        if b"\0" in content[:4096] and self.encoding.lower().startswith("utf-8"):
            self.skipped["binary"] += 1
            return None
        try:
            return content.decode("utf-8-sig" if self.encoding == "utf-8" else self.encoding)
        except LookupError:
            cure = "Give encoding=utf-8, latin-1 or another that Python knows"
            raise UserError("encoding", "is not known", got=self.encoding, cure=cure) from None
        except UnicodeDecodeError as error:
            if not strict:
                self.skipped["binary"] += 1
                return None
            raise UserError(
                path,
                f"is not {self.encoding.upper()} at byte {error.start}",
                got=content[error.start : error.start + 8],
                cure="Save it as UTF-8"
                + ", or give encoding=latin-1 or the one it has" * self.is_chosen,
            ) from None

    def _read_pdf(self, name: str, path: Path) -> bool:
        try:
            pdf = read_pdf(name, path)
        except UserError:
            raise
        except Exception as error:  # pypdf raises of every kind at damaged files
            console.print(f"{path} cannot be read as PDF and is left out: {error}")
            self.skipped["unreadable"] += 1
            return False
        self.pdf_pages += pdf.num_pages
        self.pdf_pages_without_text += pdf.num_without_text
        self.found.append(pdf.page)
        return True


def read_documents(path: Path, encoding: str | None = None) -> tuple[list[Document], Reading]:
    """Read all documents of a folder, sorted by their paths, or of a single file.

    Hidden files and folders are passed over, what ``embedtrain synth`` wrote, and links that lead out of the folder.
    Tables without a column of text are left out of a folder. PDF pages without text are
    counted, and a damaged PDF file is left out; of any other file that is damaged the reading ends. ``encoding`` is None
    where nobody can choose one: files are UTF-8 then.

    Raises:
        UserError: If there is nothing to read, a file is not in the encoding, two documents share an id, or one holds
            control characters.
    """
    reader = Reader(encoding or "utf-8", is_chosen=encoding is not None)
    files = list(_files(path))
    with progress_bar("Reading documents", len(files)) as advance:
        for name, file in files:
            reader.read(name, file)
            advance(1)
    documents, boilerplate = _assemble(reader.found)
    kept = [document for document in documents if document.text.strip()]
    report = Reading(
        files=dict(sorted(reader.files.items())),
        skipped=dict(sorted(reader.skipped.items())),
        empty=len(documents) - len(kept),
        boilerplate_lines=boilerplate,
        pdf_pages=reader.pdf_pages,
        pdf_pages_without_text=reader.pdf_pages_without_text,
    )
    if not kept and reader.without_text is not None:
        raise reader.without_text
    _refuse_nothing(path, kept, report)
    _refuse_ids(path, kept)
    if report.pdf_pages_without_text:
        console.print(
            f"{report.pdf_pages_without_text:,} of {report.pdf_pages:,} PDF pages hold no text: they are pictures, "
            "which are not read here. Run OCR over them first if they matter."
        )
    return kept, report


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name inside the corpus and the path of each file, in sorted order."""
    path = path.expanduser()
    if not path.exists():
        raise UserError(path, "does not exist", cure="Name a folder of documents, or a file")
    if not path.is_dir():
        yield _name(Path(path.name)), path
        return
    for name in BEIR:
        if (path / name).is_file():
            yield name, path / name
            return
    root = path.resolve()
    found = []
    with reading(path):
        made = {file.parent for file in path.rglob("synth.yaml") if _is_made(file.parent)} - {path}
        for file in path.rglob("*"):
            inside = file.relative_to(path)
            is_hidden = any(part.startswith(".") for part in inside.parts)
            if is_hidden or made & {*file.parents} or not file.is_file():
                continue
            if file.resolve().is_relative_to(root):
                found.append((_name(inside), file))
    yield from sorted(found)


def _is_made(folder: Path) -> bool:
    return any((folder / name).exists() for name in MADE)


def _name(inside: Path) -> str:
    """Return a path as an id: bytes of it that are no UTF-8 are written as escapes, for they could not be saved."""
    return inside.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _ending(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".gz" and (inner := Path(path.stem).suffix.lower()) in FORMATS:
        return inner
    return suffix


def _plain(name: str, text: str) -> Document:
    """Read plain text, whose first line is its title if it is short and a blank line follows."""
    text = normalise(text)
    first, _, rest = text.partition("\n")
    title = first.strip() if len(first) <= LONGEST_TITLE and rest.startswith("\n") else ""
    headings = (Heading(1, title, 0, len(first)),) if title else ()
    return Document(id=name, title=title, text=text, headings=headings)


def _assemble(found: list[Document | Page]) -> tuple[list[Document], int]:
    """Make documents of pages, those of HTML without what they share."""
    pages = [
        one
        for one in found
        if isinstance(one, Page) and MARKUP.get(_ending(Path(one.id))) is read_html
    ]
    cleaned, boilerplate = without_boilerplate(pages)
    clean = {page.id: page for page in cleaned}
    documents = [
        one if isinstance(one, Document) else assemble(clean.get(one.id, one)) for one in found
    ]
    return documents, boilerplate


def _refuse_nothing(path: Path, documents: list[Document], report: Reading) -> None:
    if documents:
        return
    if report.pdf_pages and report.pdf_pages == report.pdf_pages_without_text:
        cure = "Run OCR over them first"
        raise UserError(
            path, f"holds only pictures: {report.pdf_pages} PDF pages without text", cure=cure
        )
    known = ", ".join(sorted({*PLAIN, *MARKUP, *FORMATS, ".pdf"} - {""}))
    if report.skipped and not report.files:
        got = ", ".join(
            f"{count} {name or 'without ending'}" for name, count in report.skipped.items()
        )
        raise UserError(path, "holds no file that can be read", got=got, cure=f"These can: {known}")
    raise UserError(path, "holds no document with text", cure=f"Give files of {known}")


def _refuse_ids(path: Path, documents: list[Document]) -> None:
    if (name := next((one.id for one in documents if CONTROL.search(one.id)), None)) is not None:
        cure = "Give it one without tabs and line breaks, which judgments could not hold"
        raise UserError(path, "gives a document an id with control characters", got=name, cure=cure)
    counts = Counter(document.id for document in documents)
    if len(counts) < len(documents):
        name = next(name for name, count in counts.items() if count > 1)
        raise UserError(path, "gives two documents one id", got=name, cure="Make the ids unique")
