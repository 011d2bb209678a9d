"""Too much that waits is refused with a time, a client that goes takes its texts along, and one bad text is alone."""

import asyncio

import pytest

from embedtrain.serving.desk import Desk
from embedtrain.serving.metrics import Metrics
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import open_served
from embedtrain.serving.settings import ServeSettings


@pytest.fixture(scope="module")
def served(prompted):
    return open_served(prompted, "toy", "auto", 4096)


def desk_of(served, **limits):
    return Desk([served], ServeSettings(**limits), Metrics())


def test_beyond_what_may_wait_requests_are_told_when_to_come_again(served):
    async def run():
        desk = desk_of(served, queue_tokens=40)
        waiting = [
            asyncio.create_task(desk.encode(0, [f"{one} {'cat ' * 8}"], "document"))
            for one in ("red", "blue")
        ]
        more = asyncio.create_task(desk.encode(0, ["blue " * 20], "document"))
        with pytest.raises(Refusal) as told:
            await more
        assert (told.value.kind, told.value.status("/embed")) == ("overloaded", 429)
        assert int(told.value.headers()["retry-after"]) >= 1
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert desk.queue.tokens == 0, "those who go take their texts along"
        desk.begin()
        await desk.encode(0, ["blue " * 20], "document")
        await desk.finish()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_equal_texts_of_several_requests_are_computed_once(served):
    async def run():
        desk = desk_of(served)
        asked = [asyncio.create_task(desk.encode(0, ["the red cat"] * 3, "document")) for _ in "ab"]
        await asyncio.sleep(0.2)
        desk.begin()
        found = await asyncio.gather(*asked)
        assert desk.metrics.computed.values[()] == found[0].tokens / 3
        assert desk.metrics.tokens.values[()] == 2 * found[0].tokens
        await desk.finish()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_text_that_cannot_be_computed_fails_alone(served, monkeypatch):
    compute = served.compute
    bad = served.prepare(["blue bird"], "document")[0][0].ids.tolist()

    def fails(side, texts):
        if any(text.ids.tolist() == bad for text in texts):
            raise RuntimeError("no")
        return compute(side, texts)

    monkeypatch.setattr(served, "compute", fails)

    async def run():
        desk = desk_of(served)
        asked = [
            asyncio.create_task(desk.encode(0, [text], "document"))
            for text in ("the red cat", "blue bird", "a tree")
        ]
        await asyncio.sleep(0.2)
        desk.begin()
        first, second, third = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(second, Refusal)
        assert second.kind == "backend"
        assert len(first.results) == len(third.results) == 1
        assert desk.is_well
        await desk.finish()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_at_the_end_what_is_left_is_refused(served):
    async def run():
        desk = desk_of(served, grace_seconds=0.1)
        asked = asyncio.create_task(desk.encode(0, ["the red cat"], "document"))
        await asyncio.sleep(0.1)
        await desk.finish()
        with pytest.raises(Refusal, match="stopping"):
            await asked

    asyncio.run(asyncio.wait_for(run(), 60))
