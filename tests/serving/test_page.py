"""The page in a browser: by keyboard alone, without a network, whatever stands in documents."""

import json

import pytest
from browser import CHROMIUM, Browser
from serve_toys import running

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")

CHOICES = "document.getElementById('left')?.options.length > 0"
FOUND = "document.getElementById('status').textContent.includes('results from')"
ITEMS = "[...document.querySelectorAll('#left-list li')].length"
BAD = (
    "<img src=x onerror=window.caught=1> red",
    "</script><script>window.caught=2</script> cat",
    '" autofocus onfocus=window.caught=3 javascript:alert(1) red',
    "\u202ered backwards\u202d",
    "red " * 400,
)
CONTRAST = """
(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((one) => one / 255)
      .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (parts(color).length === 3 || parts(color)[3] > 0) return color;
    }
    return getComputedStyle(document.documentElement).colorScheme === "dark" ? "rgb(0,0,0)" : "rgb(255,255,255)";
  };
  let worst = 21;
  for (const one of document.querySelectorAll("h1, h2, h3 span, p, label, input, select, button, mark, summary")) {
    if (!one.checkVisibility() || !(one.textContent || one.value)) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(back(one))].sort((x, y) => x - y);
    worst = Math.min(worst, (b + 0.05) / (a + 0.05));
  }
  return worst;
})()
"""
UNNAMED = """
[...document.querySelectorAll("input, select, textarea, button, section")].filter((one) =>
  !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-labelledby"))).map((one) => one.id)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture
def page(browser, server):
    browser.requests.clear()
    browser.said.clear()
    browser.width(1100)
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.until(CHOICES)
    return browser


def test_a_query_is_typed_and_both_sides_answer(page, server):
    assert page.js("document.activeElement.id") == "query"
    page.type("red cat")
    page.press("Enter")
    page.until(FOUND)
    assert page.js(ITEMS) == 10
    assert page.js("document.getElementById('left-name').textContent") == "toy"
    assert page.js("document.getElementById('right-name').textContent") == "BM25 (words)"
    marked = page.js("[...document.querySelectorAll('mark')].map((one) => one.textContent)")
    assert {"red", "cat"} == set(marked)
    assert page.js("document.activeElement.id") == "query", "the next query can be typed"
    assert page.js("document.querySelector('#right-list .other').textContent").startswith(
        "other side: "
    )
    page.press("Escape")
    assert page.js(f"[{ITEMS}, document.getElementById('query').value]") == [0, ""]
    origin = f"http://127.0.0.1:{server.port}/"
    assert [one for one in page.requests if not one.startswith((origin, "data:"))] == []
    assert page.said == []


def test_every_way_to_search_answers(page):
    keys = page.js("[...document.getElementById('left').options].map((one) => one.value)")
    assert keys == [
        *("0:float", "0:int8", "0:binary", "0:16", "0:8"),
        *("1:rerank", "2:float", "3:float", "words"),
    ]
    for left, right in zip(keys, keys[1:] + keys[:1], strict=True):
        body = json.dumps({"query": "red cat", "sides": [left, right], "top": 3})
        asked = f"fetch('page/search', {{method: 'POST', body: {json.dumps(body)}}})"
        found = page.js(f"{asked}.then((one) => one.json())")
        assert [len(side["hits"]) for side in found["sides"]] == [3, 3], (left, found)
        if left.startswith("2"):
            assert found["sides"][0]["marked"] == "tokens that the query's were compared with"
            assert any(marked for hit in found["sides"][0]["hits"] for _, marked in hit["parts"])
        if left.startswith("3"):
            assert found["sides"][0]["hits"][0]["terms"]


def test_whatever_stands_in_documents_is_text(page):
    page.js("document.getElementById('own').open = true")
    documents = json.dumps("\n".join(BAD))
    page.js(f"document.getElementById('documents').value = {documents}")
    page.type("red")
    page.press("Enter")
    page.until(FOUND)
    shown = page.js(
        "[...document.querySelectorAll('#left-list .text')].map((one) => one.textContent)"
    )
    assert sorted(one.rstrip("\u2026").strip()[:30] for one in shown) == sorted(
        one.strip()[:30] for one in BAD
    )
    assert page.js("[document.images.length, document.scripts.length]") == [0, 1]
    assert page.js("window.caught ?? 0") == 0
    texts, apart = "document.querySelectorAll('.text').length", "'.text > bdi'"
    assert page.js(f"document.querySelectorAll({apart}).length") == page.js(texts)
    more = "document.querySelector('#left-list button.more')"
    page.js(f"{more}.click()")
    assert page.js(f"{more} === null")
    assert page.said == []


def test_it_goes_by_keyboard_is_named_and_readable(page, tmp_path):
    page.type("red cat")
    page.press("Enter")
    page.until(FOUND)
    passed = []
    for _ in range(7):
        passed.append(page.js("document.activeElement.id || document.activeElement.tagName"))
        page.press("Tab")
    assert passed[:6] == ["query", "BUTTON", "left", "right", "top", "SUMMARY"]
    assert page.js(UNNAMED) == []
    assert page.js("[document.documentElement.lang, document.querySelectorAll('h1').length]") == [
        "en",
        1,
    ]
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        assert page.js(CONTRAST) >= 4.5, scheme
        picture = page.screenshot()
        (tmp_path / f"{scheme}.png").write_bytes(picture)
        assert len(picture) > 20_000
    for width in (320, 640):
        page.width(width)
        assert page.js("document.documentElement.scrollWidth") <= width
    (tmp_path / "narrow.png").write_bytes(page.screenshot())


def test_a_server_with_a_token_asks_for_it_and_the_address_never_holds_it(browser, prompted):
    with running([prompted], names=("toy",), token="letters-1") as server:
        browser.requests.clear()
        browser.open(f"http://127.0.0.1:{server.port}/")
        browser.until("document.getElementById('door')?.hidden === false")
        browser.js("document.getElementById('token').focus()")
        browser.type("letters-1")
        browser.press("Enter")
        browser.until(CHOICES)
        browser.until("document.getElementById('door').hidden")
        assert not any("letters" in one for one in browser.requests)
        browser.js("sessionStorage.clear()")
