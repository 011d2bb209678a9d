"""Results of exactly one model in its card."""

import pytest
from huggingface_hub import ModelCard

from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import EvaluatedData, EvaluatedModel, write_result
from embedtrain.release.cards.results import HEADING, add_results, load_results

CARD = """---
library_name: sentence-transformers
model-index:
- name: model
  results:
  - task: {type: retrieval}
    dataset: {type: python_docs, name: python_docs, split: test}
    metrics: [{type: ndcg_at_10, value: 0.7}]
---

# A model

## Training data

Some.
"""


def make_result(value=0.5, weights="abc", name="scifact"):
    data = EvaluatedData(
        name=name, split="test", fingerprint="f" * 20, num_queries=3, num_documents=9
    )
    model = EvaluatedModel(name="m", weights=weights)
    per_query = {"ndcg_at_10": {str(n): value for n in range(3)}}
    return summarise(per_query, data, model=model, num_resamples=20)


def test_each_result_is_a_table_and_an_entry_that_the_hub_reads():
    card = add_results(CARD, [make_result(), make_result(0.25, name="nq")], "abc")
    assert card.index(HEADING) < card.index("## Training data")
    assert "0.500 (too few to tell)" in card
    parsed = ModelCard(card)
    found = {one.dataset_name: one.metric_value for one in parsed.data.eval_results}
    assert found == {"python_docs": 0.7, "scifact": 0.5, "nq": 0.25}


def test_results_that_come_again_replace_the_old_ones():
    once = add_results(CARD, [make_result(0.1)], "abc")
    again = add_results(once, [make_result(0.9)], "abc")
    assert again.count(HEADING) == 1
    assert add_results(again, [make_result(0.9)], "abc") == again
    found = {one.dataset_name: one.metric_value for one in ModelCard(again).data.eval_results}
    assert found == {"python_docs": 0.7, "scifact": 0.9}


def test_a_card_without_results_gets_its_first():
    card = add_results("---\nlicense: mit\n---\n\n# A model\n", [make_result()], "abc")
    assert [one.metric_value for one in ModelCard(card).data.eval_results] == [0.5]


def test_a_result_of_another_checkpoint_is_refused():
    with pytest.raises(UserError, match="result of another model on scifact; got 'm'"):
        add_results(CARD, [make_result(weights="other")], "abc")


def test_files_and_folders_of_results_are_read(tmp_path):
    write_result(make_result(), tmp_path / "a" / "x.json")
    write_result(make_result(name="nq"), tmp_path / "y.json")
    found = load_results([tmp_path / "a", tmp_path / "y.json"])
    assert [result.data.name for result in found] == ["scifact", "nq"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no result"):
        load_results([tmp_path / "empty"])
