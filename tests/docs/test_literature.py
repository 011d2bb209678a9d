"""The page of the literature says what is there: recipes load, commands parse, and deviations stand where they are claimed."""

import re
import shlex
import sys

import pytest
from doc_blocks import Command
from doc_commands import check_command, check_recipe
from places import ROOT, SCRIPTS

sys.path.append(str(SCRIPTS))
from make_literature import PAGE, System, read_topics, render_page

TOPICS = read_topics()
SYSTEMS = [system for topic in TOPICS for system in topic.systems]
SAID = [(system.system, said) for system in SYSTEMS for said in system.said]


def flat(text: str) -> str:
    """Return a text without the line breaks and the signs of comments that a sentence may run over."""
    words = (line.strip().removeprefix("#") for line in text.splitlines())
    return " ".join(" ".join(words).split()).replace('" "', "")


def test_the_page_is_made_from_the_table():
    made = render_page(TOPICS)
    assert PAGE.read_text(encoding="utf-8") == made, "run python scripts/make_literature.py"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.system)
def test_a_system_that_is_here_says_how_to_run_it_and_it_can_be_typed(system: System, tmp_path):
    assert bool(system.run) == (system.status != "missing")
    assert system.differs or system.status != "part", "a part says what it leaves out"
    for words in system.run:
        if words.startswith("embedtrain "):
            check_command(Command(system.system, tuple(shlex.split(words))), tmp_path)
        else:
            assert (ROOT / "recipes" / f"{words}.yaml").is_file(), f"there is no recipe {words}"
            check_recipe(words, [], tmp_path)


@pytest.mark.parametrize(("system", "said"), SAID, ids=lambda one: getattr(one, "file", one))
def test_what_differs_stands_where_the_paper_is_named(system, said):
    text = flat((ROOT / said.file).read_text(encoding="utf-8"))
    assert flat(said.sentence) in text, f"{said.file} does not say of {system}: {said.sentence}"


def test_no_system_has_two_rows():
    names = [system.system for system in SYSTEMS]
    assert len(names) > 80
    assert len(set(names)) == len(names)


def test_a_page_that_calls_a_method_whole_has_it_so_in_the_table():
    status = {system.system: system.status for system in SYSTEMS}
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*/README.md")]
    text = flat("\n".join(page.read_text(encoding="utf-8") for page in pages if page != PAGE))
    named = r"[\w-]*\b(" + "|".join(map(re.escape, status)) + ")"
    claims = re.findall(rf"{named} (?:is )?(?:whole|in full)\b|\bis {named} whole\b", text)
    names = [one or other for one, other in claims]
    assert "D2LLM" in names
    assert [name for name in names if status[name] != "whole"] == []
