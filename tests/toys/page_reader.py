"""Reads the page of a report as a browser does, and refuses what a page must not have."""

from html.parser import HTMLParser

from embedtrain.evaluation.results.result import write_result
from embedtrain.workflows.evaluate.report import write_report

VOID = {"meta", "br", "hr", "img", "link"}


class Reader(HTMLParser):
    """Collects texts and outside addresses; fails where tags do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        assert tag not in {"script", "iframe", "link", "img"}
        self.addresses += [
            value for name, value in attributes if name in {"src", "href"} and value[0] != "#"
        ]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def shown(result, folder):
    """Return the words of the page about a result."""
    write_result(result, folder / "result.json")
    path = write_report([folder / "result.json"], folder / "page.html")
    return " ".join(" ".join(read(path).texts).split())
