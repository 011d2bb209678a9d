"""Folders of documents, texts of made-up words, and PDF files written by hand."""

from pathlib import Path
from random import Random

SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "pa", "re", "so", "ti", "vu", "za", "de", "fo", "gi")


def sentence(random, length=9):
    words = ["".join(random.choices(SYLLABLES, k=3)) for _ in range(length)]
    return " ".join(words).capitalize() + "."


def paragraph(random, sentences=4):
    return " ".join(sentence(random) for _ in range(sentences))


def write_folder(folder: Path, number=40, seed=0):
    """Write Markdown files whose titles and headings are of their own."""
    random = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(number):
        title, heading = sentence(random, 4)[:-1], sentence(random, 3)[:-1]
        body = f"# {title}\n\n{paragraph(random)}\n\n## {heading}\n\n{paragraph(random)}\n"
        (folder / f"{place:03d}.md").write_text(body, encoding="utf-8")
    return folder


def write_pdf(path: Path, pages, title=""):
    """Write a PDF file; a page is lines of text, none for a picture."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 50 700 Td {shown}ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    content, places = "%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n{trailer}\n"
    path.write_bytes(f"{content}startxref\n{content.index('xref')}\n%%EOF\n".encode("latin-1"))
