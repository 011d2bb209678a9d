import pytest

from embedtrain.data.documents.blocks import assemble
from embedtrain.data.documents.html import read_html

PAGE = """<html><head><title>Boiling | Kitchen</title><style>p {color: red}</style>
<script>if (a < b) alert("scripted")</script></head><body>
<nav><ul><li>Home<li>About</ul></nav><header>Banner</header>
<article><header><h1>Boiling <em>water</em></h1></header>
<p>Put it on
   the&nbsp;stove.<br>Wait.</p><ul><li>one</li><li>two</li></ul>
<pre>a  b

c</pre><h2>More</h2><p>See <a href="other.html#x">the other <b>pot</b></a>.</p></article>
<form>Sign up <input></form><footer>Imprint</footer></body></html>"""


def read(text):
    return assemble(read_html("a/page.html", text))


def test_visible_text_is_kept_and_nothing_else():
    text = read(PAGE).text
    assert text == (
        "Boiling water\n\nPut it on the stove.\nWait.\n\none\ntwo\n\na  b\n\nc\n\nMore\n\nSee the other pot."
    )


def test_title_headings_code_and_links_are_found():
    document = read(PAGE)
    assert document.title == "Boiling"
    assert [(one.level, one.text) for one in document.headings] == [
        (1, "Boiling water"),
        (2, "More"),
    ]
    assert [document.text[start:end] for start, end in document.whole] == ["a  b\n\nc"]
    assert [(one.text, one.target) for one in document.links] == [("the other pot", "a/other.html")]


def test_a_page_without_title_has_that_of_its_heading():
    assert read("<h1>Only this</h1><p>text").title == "Only this"


def test_broken_pages_are_read():
    assert (
        read("<p>open <b>never closed</p></div></article><p>after").text
        == "open never closed\n\nafter"
    )


def test_a_form_around_a_page_is_the_page():
    page = "<body><form action=x><h1>Pumps</h1><div>All of <p>them.</p></div><button>Go</button></form></body>"
    assert read(page).text == "Pumps\n\nAll of\n\nthem."
    assert read("<p>Before</p><form>Name <a href=b.html>of you</a></form><p>After").text == (
        "Before\n\nAfter"
    )


@pytest.mark.parametrize("tag", ["aside", "nav", "footer"])
def test_what_is_never_closed_ends_with_what_it_stands_in(tag):
    page = f"<div><p>Kept.</p><{tag}><div>Gone</div> and gone</div><div><p>Kept too.</p></div>"
    assert read(page).text == "Kept.\n\nKept too."


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("std::vector - cppreference", "std::vector"),
        ("Boiling - a guide | Kitchen", "Boiling - a guide"),
        ("well-known: words", "well-known: words"),
    ],
)
def test_a_title_loses_the_name_of_the_site(title, kept):
    assert read(f"<title>{title}</title><p>text").title == kept
