"""Queries by rules, without a model: titles, headings, questions, first sentences, crops, key phrases, links.

A rule takes the words of the query out of the text that should answer it: else training would only learn to compare
strings. Source of the crops: Izacard et al. (2021), https://arxiv.org/abs/2112.09118; of the first sentences: Lee et
al. (2019), https://arxiv.org/abs/1906.00300.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedtrain.data.documents.document import Chunk, Document
from embedtrain.data.draw import generator
from embedtrain.data.raw_text.rules import (
    begins_with,
    draw_run,
    heading_pair,
    key_of,
    thinned,
    without,
    without_longer,
    word_spans,
)
from embedtrain.data.words import EVERY_STOP_WORD, WORD, num_words
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.settings import MAKERS, Maker, SynthesisConfig

Made = Iterator[tuple[str, str]]
"""Queries, each with its positive."""
TITLE_WORDS = range(3, 21)
SENTENCE_WORDS = range(6, 31)
FEWEST_QUESTION_WORDS = 3
FEWEST_ANCHOR_WORDS = 2
CROP_WORDS = 24
"""Words of a text from which spans are taken."""
SHORTEST_CROP = 5
KEY_WORDS = (3, 6)
SATURATION = 1.2
"""The k1 of BM25."""
FIRST_SENTENCE = re.compile(r"\s*(\S.*?[.!?\u3002\uff01\uff1f])(?=\s|$)", re.DOTALL)
QUESTION = re.compile(
    r"^[ \t]*(?:[-*]|\d+[.)]|Q(?:uestion)?\s*\d*[:.)])?[ \t]*(\S.*[^\W_][\"')\u201d]?[?\uff1f])[ \t]*$",
    re.MULTILINE,
)
ANSWER = re.compile(r"\A\s*A(?:nswer)?\s*\d*[:.)]\s*")


@dataclass(frozen=True)
class Rules:
    """Writes queries by rules; a :class:`embedtrain.synthesis.candidate.Writer`.

    What is unique, rare or linked is known from all chunks and documents, not only from those it writes for.
    """

    config: SynthesisConfig
    first: Mapping[str, str]
    """Of each document the id of its first chunk that is long enough."""
    titles: Mapping[tuple[str, ...], int]
    """How many documents have a title."""
    anchors: Mapping[str, Sequence[str]]
    """Of each document the words of links to it."""
    frequency: Mapping[str, int]
    """In how many chunks a word stands."""
    num_chunks: int
    name: str = "rules"

    @classmethod
    def of(
        cls, config: SynthesisConfig, documents: Sequence[Document], chunks: Sequence[Chunk]
    ) -> "Rules":
        """Look at the whole corpus."""
        first: dict[str, str] = {}
        frequency: Counter[str] = Counter()
        for chunk in chunks:
            if len(chunk.text) >= config.chunks.min_characters:
                first.setdefault(chunk.document, chunk.id)
            frequency.update(set(WORD.findall(chunk.text.lower())))
        anchors: dict[str, list[str]] = {}
        for document in documents:
            for link in document.links:
                if link.target != document.id:
                    anchors.setdefault(link.target, []).append(link.text)
        titles = Counter(key_of(document.title) for document in documents)
        return cls(config, first, titles, anchors, frequency, len(chunks))

    def write(self, chunks: Sequence[Chunk]) -> Iterator[Candidate]:
        """Yield the queries of each chunk, in the order of the chunks."""
        rules: dict[Maker, Callable[[Chunk], Made]] = {
            "title": self._title,
            "heading": self._heading,
            "question": self._question,
            "first": self._first,
            "crop": self._crop,
            "keyphrases": self._keyphrases,
            "link": self._link,
        }
        chosen = self.config.makers or MAKERS
        for chunk in chunks:
            slot = 0
            for maker in (one for one in MAKERS if one in chosen):
                for written, rest in rules[maker](chunk):
                    query, positive = " ".join(written.split()), rest.strip()
                    if self._is_usable(query, positive):
                        yield Candidate(
                            query, positive, chunk.id, chunk.document, maker, maker, slot
                        )
                        slot += 1

    def _is_usable(self, query: str, positive: str) -> bool:
        return (
            bool(query)
            and len(positive) >= self.config.chunks.min_characters
            and not begins_with(positive, query)
        )

    def _title(self, chunk: Chunk) -> Made:
        """The title, if it is that of no other document, for the first chunk."""
        title = chunk.title.strip(" .")
        alone = self.titles.get(key_of(chunk.title), 0) == 1
        if alone and self.first.get(chunk.document) == chunk.id and num_words(title) in TITLE_WORDS:
            yield title, without(chunk.text, title)

    def _heading(self, chunk: Chunk) -> Made:
        """The headings that a chunk stands under, with the title if they say little alone."""
        if pair := heading_pair(chunk):
            yield pair

    def _question(self, chunk: Chunk) -> Made:
        """Headings and lines that end in a question mark, and the text up to the next one."""
        name = chunk.heading.split(" > ")[-1]
        if name.endswith("?") and num_words(name) >= FEWEST_QUESTION_WORDS:
            yield name, without(chunk.text, name)
        found = [
            one
            for one in QUESTION.finditer(chunk.text)
            if num_words(one[1]) >= FEWEST_QUESTION_WORDS
        ]
        for place, question in enumerate(found, 1):
            end = found[place].start() if place < len(found) else len(chunk.text)
            yield question[1], ANSWER.sub("", chunk.text[question.end() : end])

    def _first(self, chunk: Chunk) -> Made:
        """The first sentence of a paragraph, for what is left of the chunk."""
        random = generator(self.config.seed, chunk.id, "first")
        if random.random() >= self.config.shares.first:
            return
        found = [
            sentence
            for paragraph in re.split(r"\n\s*\n", chunk.text)
            if (sentence := FIRST_SENTENCE.match(paragraph))
            and num_words(sentence[1]) in SENTENCE_WORDS
            and sentence.end() < len(paragraph.rstrip())
        ]
        if found:
            drawn = found[int(random.integers(len(found)))][1]
            yield drawn.strip(" .\n"), without(chunk.text, drawn)

    def _crop(self, chunk: Chunk) -> Made:
        """Two spans of words, drawn each for itself: they may overlap; the query lacks some of its words."""
        random = generator(self.config.seed, chunk.id, "crop")
        spans = word_spans(chunk.text)
        size = len(spans)
        if size < CROP_WORDS or random.random() >= self.config.shares.crop:
            return
        for _ in range(4):  # another draw where the positive would begin with the query
            run = draw_run(spans, SHORTEST_CROP, size // 4, random)
            query = thinned(chunk.text, run, random)
            run = draw_run(spans, size // 4, 3 * size // 4, random)
            positive = chunk.text[run[0][0] : run[-1][1]]
            if self._is_usable(query, positive):
                yield query, positive
                return

    def _keyphrases(self, chunk: Chunk) -> Made:
        """The words that weigh most in BM25, in the order of the text."""
        random = generator(self.config.seed, chunk.id, "keyphrases")
        if random.random() >= self.config.shares.keyphrases:
            return
        words = WORD.findall(chunk.text)
        counts = Counter(word.lower() for word in words)
        weights = {
            word: count / (count + SATURATION) * self._rarity(word)
            for word, count in counts.items()
            if len(word) > 2 and not word.isdigit() and word not in EVERY_STOP_WORD
        }
        wanted = int(random.integers(KEY_WORDS[0], KEY_WORDS[1] + 1))
        best = sorted(weights, key=lambda word: (-weights[word], word))[:wanted]
        if len(best) >= KEY_WORDS[0]:
            places = {word.lower(): place for place, word in reversed(list(enumerate(words)))}
            yield (
                " ".join(words[place] for place in sorted(places[word] for word in best)),
                chunk.text,
            )

    def _rarity(self, word: str) -> float:
        number = self.frequency.get(word, 0)
        return math.log1p((self.num_chunks - number + 0.5) / (number + 0.5))

    def _link(self, chunk: Chunk) -> Made:
        """The words of links that lead to the chunk's document, each once."""
        if self.first.get(chunk.document) != chunk.id:
            return
        known = {key_of(chunk.title)}
        for anchor in self.anchors.get(chunk.document, ()):
            if key_of(anchor) not in known and num_words(anchor) >= FEWEST_ANCHOR_WORDS:
                known.add(key_of(anchor))
                yield anchor, without_longer(chunk.text, anchor)
