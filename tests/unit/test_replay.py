"""Sending a basket again: as often as was asked for, and only while that makes sense."""

import asyncio

import httpx
import pytest

from workshop.lab import replay


@pytest.mark.parametrize(
    ("statuses", "at_most", "ends_with", "tries"),
    [
        ([503, 409, 201], 8, 201, 3),
        ([503, 201], 1, 503, 1),
        ([None, None], 2, None, 2),
        ([422, 201], 8, 422, 1),
    ],
    ids=["until it is taken", "once, if only once is asked for", "no answer at all", "not what is refused for good"],
)
def test_a_basket_is_sent_until_the_answer_is_final(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int | None], at_most: int, ends_with: int | None, tries: int
) -> None:
    monkeypatch.setattr(replay, "PAUSE_S", 0)
    left, asked = list(statuses), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        status = left.pop(0)
        if status is None:
            raise httpx.ConnectError("nobody is there")
        return httpx.Response(status)

    async def sent() -> tuple[httpx.Response | None, int]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await replay._until_answered(client, ["http://one", "http://other"], {}, {}, at_most)

    response, tried = asyncio.run(sent())
    assert (None if response is None else response.status_code, tried) == (ends_with, tries)
    assert asked == ["one", "other", "one"][:tries]  # the first process may be dead
