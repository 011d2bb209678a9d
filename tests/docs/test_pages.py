"""What pages say about the checkout must be so: files, names, layers, figures, lengths, links."""

import json
import re
import tomllib

import pytest
from doc_blocks import blocks_of
from places import ROOT, SCRIPTS

LINES = {"README.md": 150, "CONTRIBUTING.md": 60, "AGENTS.md": 40, "docs/architecture.md": 120}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LINES)
def test_a_page_is_short(name):
    assert len(read(name).splitlines()) <= LINES[name]


def test_the_recipe_of_the_readme_has_twelve_lines():
    recipe = next(
        block for block in blocks_of("README.md", read("README.md")) if block.language == "yaml"
    )
    assert len(recipe.text.splitlines()) <= 12


def test_files_and_folders_that_pages_name_are_there():
    places = 0
    for page in (*LINES, "SECURITY.md", "docs/add_an_objective.md", "docs/exactness.md"):
        for name in re.findall(
            r"`((?:embedtrain|tests|scripts|recipes|docs|kernels)/[\w./]*)`", read(page)
        ):
            if not re.search(r"[A-Z]{3}|hinge", name):  # stands for a name of the reader's
                places += 1
                assert (ROOT / name).exists(), f"{page}: there is no {name}"
    assert places > 30


def test_the_way_of_a_row_names_what_its_files_define():
    rows = re.findall(
        r"^\| `(embedtrain/\S+\.py)` \| `(\w+)` \|", read("docs/architecture.md"), re.M
    )
    assert len(rows) > 15
    for file, name in rows:
        assert re.search(rf"^(?:def|class) {name}\b", read(file), re.M), f"{file} defines no {name}"


def test_the_drawing_of_the_layers_is_the_contract():
    drawing = read("docs/architecture.md").partition("```text\n")[2].partition("```")[0]
    drawn = [re.split(r"\s{3,}", line.strip())[0] for line in drawing.splitlines()]
    project = tomllib.loads(read("pyproject.toml"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["name"].startswith("Folders"))
    assert drawn == layers


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "AGENTS.md"])
def test_links_of_a_page_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", read(name))
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), f"{name}: no {link}"


def test_the_picture_is_what_the_script_draws_and_its_figures_are_measured_ones(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from plot_results import picture

    results = json.loads(read("docs/images/results.json"))
    assert read("docs/images/results.svg") == picture(results), "run python scripts/plot_results.py"
    measured = read("docs/measured.md") + read("recipes/dense/README.md")
    figures = [f"{row[key]:.3f}" for row in results["quality"] for key in ("from", "to")]
    figures += [f"{row[key]:.1f}x" for row in results["speed"] for key in ("float32", "bf16")]
    assert [figure for figure in figures if figure not in measured] == []


def test_every_row_of_what_is_measured_says_what_it_costs():
    tables = re.findall(
        r"^\| What \| Wins \| Costs \| Command \|\n\|[-|]+\n((?:\|.*\n)+)",
        read("docs/measured.md"),
        re.M,
    )
    rows = [line.strip("|").split(" | ") for table in tables for line in table.splitlines()]
    assert len(rows) > 15
    for row in rows:
        assert len(row) == 4, row
        assert all(cell.strip() for cell in row), row
