"""Texts from outside stay text in a card: what a Markdown reader sees holds nothing that they add."""

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import EvaluatedData, EvaluatedModel
from embedtrain.release.cards.markdown import fenced, inline, markdown_table
from embedtrain.release.cards.results import add_results

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![seen](https://evil.example/beacon.png)",
    "[a][b]\n\n[b]: https://evil.example",
    "a | b | c",
    "x\n\n# A heading\n\n- a list",
    "```\nout of the fence\n```",
    "x\n---\nlicense: other\n---",
    "&lt;b&gt; [x] [y]",
]
FORBIDDEN = {
    "html_block",
    "html_inline",
    "link_open",
    "image",
    "heading_open",
    "hr",
    "bullet_list_open",
}


def kinds(markdown):
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    return [one.type for token in tokens for one in (token, *(token.children or ()))]


@pytest.mark.parametrize("text", NASTY)
def test_a_text_in_a_line_or_a_cell_stays_text(text):
    assert not FORBIDDEN & set(kinds(f"Name: {inline(text)}"))
    found = kinds(markdown_table(["Source", "Rows"], [[text, 1234], [text, 1]]))
    assert not FORBIDDEN & set(found)
    assert found.count("td_open") == 4


@pytest.mark.parametrize("text", [*NASTY, "````\nfour\n`````"])
def test_a_block_of_code_holds_all_of_its_text(text):
    tokens = MarkdownIt("commonmark").parse(fenced(text, "yaml"))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == f"{text}\n"


@pytest.mark.parametrize("name", NASTY)
def test_the_name_of_data_adds_nothing_to_a_card(name):
    data = EvaluatedData(
        name=name, split="test", fingerprint="f" * 20, num_queries=9, num_documents=9
    )
    per_query = {"ndcg_at_10": {str(n): n / 9 for n in range(9)}}
    model = EvaluatedModel(name="m", weights="abc")
    result = summarise(per_query, data, model=model, num_resamples=20)
    plain = "---\nlicense: mit\n---\n\n# A model\n"
    card = ModelCard(add_results(plain, [result], "abc"))
    assert card.data.license == "mit"
    assert card.data.eval_results[0].dataset_name == name
    found = kinds(card.text)
    assert found.count("heading_open") == 2
    assert not (FORBIDDEN - {"heading_open"}) & set(found)
