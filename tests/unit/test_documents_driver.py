"""What the driver may do to us: swallow a cancellation, and never end. Stood in for: it does so by chance only."""

import asyncio
from typing import Any, cast

import pytest

from showcase.documents import Collection, Document
from showcase.documents.infrastructure.changes import _Reader
from showcase.documents.infrastructure.mongo import Mongo, Options

pytestmark = pytest.mark.anyio
URL = "mongodb://a:b@127.0.0.1:1/c"
WITHIN_S = 2.0


class Note(Document):
    id: int


NOTES = Collection(name="notes", model=Note)


class Swallowing:
    """A change stream that answers at the very moment at which its reader is first cancelled: nothing has happened."""

    resume_token = None
    has_swallowed = False

    async def try_next(self) -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            if self.has_swallowed:  # the test is over, and has failed
                raise
            self.has_swallowed = True


async def test_a_reader_of_changes_that_is_cancelled_at_the_moment_of_an_answer_ends() -> None:
    mongo = Mongo(URL, Options())
    changes = _Reader(mongo, NOTES, "reader", 100, None).changes(cast("Any", Swallowing()))
    reading = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)

    reading.cancel()

    done, _ = await asyncio.wait([reading], timeout=WITHIN_S)
    assert done, "it reads on"
    assert reading.cancelled()
    await mongo.close()


async def test_a_client_that_does_not_end_is_left_after_the_time_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    mongo = Mongo(URL, Options(timeout_s=0.1))
    monkeypatch.setattr(mongo.client, "close", asyncio.Event().wait)

    async with asyncio.timeout(WITHIN_S):
        await mongo.close()
