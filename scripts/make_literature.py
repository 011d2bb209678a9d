"""Write the page of what is here of the literature, from the table in docs/literature.yaml.

python scripts/make_literature.py            writes docs/literature.md
"""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).resolve().parents[1]
TABLE, PAGE = ROOT / "docs" / "literature.yaml", ROOT / "docs" / "literature.md"
HEAD = """# Literature

What embedtrain has of the systems that it was made after, what differs from their papers, and what to type. *Whole* means
that what the paper trains or measures can be done; *part* that a piece is not here, which is named.
"""


class Said(BaseModel):
    """A file that names a paper, and the sentence there that says what differs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sentence: str


class System(BaseModel):
    """A row: a system of the literature."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    paper: str
    link: str = Field(pattern="^https://")
    status: Literal["whole", "part", "missing", "out of scope"]
    here: str
    differs: str = ""
    run: tuple[str, ...] = ()
    """Names of recipes, or command lines."""
    said: tuple[Said, ...] = ()


class Topic(BaseModel):
    """The systems under one heading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str
    systems: tuple[System, ...]


def read_topics() -> list[Topic]:
    """Read the table."""
    content = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [Topic.model_validate(topic) for topic in content]


def render_page(topics: list[Topic]) -> str:
    """Return the page: a paragraph for each system."""
    parts = [HEAD.rstrip()]
    for topic in topics:
        parts += [f"## {topic.topic}", *map(_paragraph, topic.systems)]
    return "\n\n".join(parts) + "\n"


def _paragraph(row: System) -> str:
    lines = [f"- **[{row.system}]({row.link})**, {row.paper}: *{row.status}.*", row.here]
    if row.differs:
        lines.append(f"Differs: {row.differs}")
    if row.run:
        lines.append("Run: " + "; ".join(map(_run, row.run)))
    return "\n  ".join(lines)


def _run(words: str) -> str:
    """Return a command as it is typed, or a recipe with the link to its page."""
    if words.startswith("embedtrain "):
        return f"`{words}`"
    folder, _, name = words.partition("/")
    return f"[`{words}`](recipes/{folder}.md#{folder}{name})"


if __name__ == "__main__":
    PAGE.write_text(render_page(read_topics()), encoding="utf-8")
