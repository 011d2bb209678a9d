"""Ids and names that look like paths, markup or ends of lines stay what they are: ids."""

import json
import re

import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.results.comparison import ComparedScore
from embedtrain.evaluation.results.page import LONGEST, page, paragraph, table
from embedtrain.evaluation.results.plots import draw_curve, plot_comparison
from embedtrain.workflows.evaluate.report import write_report
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

ODD = [
    "../../up",
    "..",
    "/etc/passwd",
    "a b",
    "line\u2028break",
    "vertical\x0btab",
    "\x1b[31mred",
    "<script>alert(1)</script>",
    "$x^{$",
    "%41",
    "x" * 1_000_000,
]
NAME = "<img src=x> $x^{$ \x00\ud800\n" + "x" * 100_000


@pytest.fixture
def odd_task(tmp_path):
    folder = tmp_path / "odd"
    (folder / "qrels").mkdir(parents=True)
    texts = ["the red cat", "a blue dog", "the green bird", "a small tree"]
    for name, more in (("queries", []), ("corpus", ["new\nline", "a\ttab"])):
        rows = [{"_id": one, "text": texts[n % 4]} for n, one in enumerate([*ODD, *more])]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = "".join(f"{one}\t{one}\t1\n" for one in ODD)
    (folder / "qrels" / "test.tsv").write_bytes(judged.encode())
    return folder


def test_evaluate_and_report_write_nothing_but_what_they_say(odd_task, bert, tmp_path):
    output = tmp_path / "scores"
    (result,) = evaluate_tasks(bert, Wish([str(odd_task)], efficiency=False), output)
    assert set(result.per_query["ndcg_at_10"]) == set(ODD)
    content = json.loads((output / "odd.test.json").read_text())
    for values in content["per_query"].values():
        values.update(dict.fromkeys(ODD[:6], 0.0) | dict.fromkeys(ODD[6:], 1.0))
    (output / "base.json").write_text(json.dumps(content))
    written = write_report(
        [output / "odd.test.json"],
        tmp_path / "page" / "a.html",
        baseline=output / "base.json",
        data=str(odd_task),
    )
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {one for one in found if not one.startswith("odd")} == {
        *("scores/odd.test.json", "scores/odd.test.trec", "scores/base.json"),
        *("page/a.html", "page/a.json"),
    }
    text = written.read_text(encoding="utf-8")
    assert "<script" not in text
    assert len(text) < 200_000
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_a_split_that_leads_out_of_the_output_is_refused(odd_task, bert, tmp_path):
    (tmp_path / "odd" / "up.tsv").write_bytes((odd_task / "qrels" / "test.tsv").read_bytes())
    with pytest.raises(UserError, match="would lead out of --output"):
        evaluate_tasks(bert, Wish([str(odd_task)], "../up"), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_page_holds_any_name():
    text = page(NAME, [(NAME, [paragraph(NAME), table([NAME], [[NAME]])])])
    assert "<img" not in text
    assert len(text) < 10 * LONGEST
    assert "default-src 'none'" in text
    text.encode()


def test_pictures_hold_any_name(tmp_path):
    score = ComparedScore(NAME, NAME, "ndcg_at_10", 0.5, 0.4, 0.1, 0.0, 0.2, 0.01, 0.01, 0.1, 9)
    for ending in ("svg", "png"):
        plot_comparison([score], NAME, tmp_path / f"a.{ending}")
    drawing = draw_curve([(0, 1.0), (1, 2.0)], NAME, "step")
    assert "<img" not in drawing
    assert len(drawing) < 100_000
    for text in (drawing, (tmp_path / "a.svg").read_text(encoding="utf-8")):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text)
