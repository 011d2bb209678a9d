"""The page of a report in a browser: escaped, readable in light and dark and on a phone."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from page_reader import read

from embedtrain.evaluation.results.page import page, paragraph, table
from embedtrain.workflows.evaluate.report import write_report

CHROMIUM = Path("/usr/bin/chromium")


def test_markup_in_texts_stays_text(tmp_path):
    path = tmp_path / "x.html"
    nasty = "<script>alert(1)</script>"
    path.write_text(page(nasty, [(nasty, [paragraph(nasty), table((nasty, "n"), [(nasty, 1)])])]))
    assert read(path).texts.count(nasty) == 6


def test_names_ids_and_texts_of_an_attacker_stay_text(scores, beir, tmp_path):
    nasty = '"><img src=x onerror=alert(1)><script>alert(1)</script>$\\\\frac$'
    stored = json.loads((scores / "mine.json").read_text(encoding="utf-8"))
    stored["data"]["name"] = nasty
    stored["model"]["name"] = nasty
    for name, values in stored["per_query"].items():
        stored["per_query"][name] = {f"{query}{nasty}": value for query, value in values.items()}
    mine = tmp_path / f"{nasty.replace('/', '')}.json"
    mine.write_text(json.dumps(stored), encoding="utf-8")
    path = write_report([mine], tmp_path / "x.html")
    text = path.read_text(encoding="utf-8")
    tags = set(re.findall(r"<([a-z]+)", text))
    assert not tags & {"script", "img", "iframe", "object", "a"}
    assert not re.findall(r"<[^>]* on[a-z]+=", text)
    assert "default-src 'none'" in text.partition("<title>")[0]


FRAMES = """<!DOCTYPE html><title>frames</title><body><script>
const page = %s;
let left = 2;
for (const width of [400, 1000]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 700px; border: 0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument, style = (one) => frame.contentWindow.getComputedStyle(one);
    const said = document.createElement("p");
    said.textContent = JSON.stringify({
      width, needed: inner.documentElement.scrollWidth, back: style(inner.body).backgroundColor,
      ink: style(inner.querySelector("svg text")).fill, tables: inner.querySelectorAll("table").length });
    document.body.append(said);
  };
  document.body.append(frame);
}
</script>"""


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
@pytest.mark.parametrize(("scheme", "is_dark"), [(0, True), (1, False)])
def test_a_browser_shows_the_page_in_light_and_dark_and_on_a_phone(
    scores, beir, tmp_path, scheme, is_dark
):
    sources = [scores / "mine.json", scores / "small.json"]
    path = write_report(sources, tmp_path / "x.html", baseline=scores / "base.json", data=str(beir))
    frames = tmp_path / "frames.html"
    page_text = json.dumps(path.read_text(encoding="utf-8")).replace("</", "<\\/")
    frames.write_text(FRAMES % page_text, encoding="utf-8")
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'browser'}"),
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", f"--screenshot={tmp_path / 'x.png'}", frames.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr
    seen = [json.loads(one) for one in re.findall(r"<p>(\{.*?\})</p>", done.stdout)]
    assert sorted(one["width"] for one in seen) == [400, 1000]
    for one in seen:
        assert one["needed"] <= one["width"], "nothing hangs over the edge"
        assert one["tables"] >= 4
        assert (brightness(one["back"]) < 0.2) == is_dark
        assert (brightness(one["ink"]) > 0.7) == is_dark, "letters of plots stand out as well"


def brightness(color):
    """Return 0 for black, 1 for white."""
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / (3 * 255)
