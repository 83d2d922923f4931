"""Which function handles which event, and what is parked because none can."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from showcase.kernel.errors import Conflict, Forbidden, Invalid, NotFound, TooMany, Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Anything, Handlers, Unhandleable, is_permanent

pytestmark = pytest.mark.anyio


class Note(BaseModel):
    words: str


async def nothing(event: Event, data: BaseModel) -> None: ...


async def other(event: Event, data: BaseModel) -> None: ...


def event(type_: str = "t.note.v1", **data: object) -> Event:
    return Event(type=type_, source="/t", subject="notes/1", data=data or {"words": "hello"})


def handlers() -> Handlers:
    made = Handlers()
    made.on("t.note.v1", Note, nothing)
    return made


def attributes(**changes: object) -> dict[str, object]:
    changed = event().attributes() | changes
    return {name: value for name, value in changed.items() if value is not None}


def test_a_handler_gets_the_data_it_has_asked_for_whatever_else_comes_with_it() -> None:
    task = handlers().read(attributes(), b'{"words": "hello", "more": 1}')
    assert task.data == Note(words="hello")


@pytest.mark.parametrize(
    ("changes", "body", "reason"),
    [
        ({"datacontenttype": "text/xml"}, b"{}", "content type is 'text/xml'"),
        ({"contentencoding": "gzip"}, b"{}", "content encoding is 'gzip'"),
        ({"id": None}, b"{}", "'id' is missing"),
        ({"subject": None}, b"{}", "'subject' is missing"),
        ({"type": 7}, b"{}", "'type' is no text"),
        ({"specversion": "0.3"}, b"{}", "specversion is '0.3'"),
        ({"time": "yesterday"}, b"{}", "yesterday"),
        ({}, b'{"words":', "no JSON"),
        ({}, b"\xff\xfe", "no JSON"),
        ({}, b"[]", "no JSON object"),
        ({}, b"[" * 100_000, "no JSON"),
        ({"type": "t.note.v9"}, b"{}", "nobody here handles t.note.v9, only t.note.v1"),
        ({}, b"{}", "t.note.v1: words: Field required"),
        ({}, b'{"words": 7}', "words: Input should be a valid string"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_message_that_nobody_can_handle_is_told_why(changes: dict[str, object], body: bytes, reason: str) -> None:
    with pytest.raises(Unhandleable, match=reason) as refused:
        handlers().read(attributes(**changes), body)
    assert is_permanent(refused.value)


def test_what_the_data_holds_is_not_told_with_what_is_wrong_about_it() -> None:
    with pytest.raises(Unhandleable) as refused:
        handlers().read(attributes(), b'{"words": ["a secret"]}')
    assert "secret" not in str(refused.value)


def test_its_own_type_comes_before_a_pattern() -> None:
    made = handlers()
    made.on("t.#", Anything, other)
    assert made.read(attributes(), b'{"words": ""}').handler.handle is nothing
    assert made.read(attributes(type="t.else.v1"), b"{}").handler.handle is other
    assert made.types == ("t.note.v1", "t.#")


def test_an_old_version_is_read_as_the_newest_step_by_step() -> None:
    made = Handlers()
    made.on("t.note.v3", Note, nothing)
    made.upcast("t.note.v1", "t.note.v2", lambda data: {"text": data["t"]})
    made.upcast("t.note.v2", "t.note.v3", lambda data: {"words": data["text"]})

    task = made.read(attributes(), b'{"t": "hello"}')
    assert (task.event.type, task.data) == ("t.note.v3", Note(words="hello"))
    assert set(made.types) == {"t.note.v1", "t.note.v2", "t.note.v3"}


def fails(data: Mapping[str, Any]) -> Mapping[str, Any]:
    raise AttributeError("nobody thought of that")


@pytest.mark.parametrize("change", [lambda data: {"words": data["t"]}, fails])
def test_an_old_version_that_cannot_be_read_as_the_next_one_is_nobodys(change: Any) -> None:
    made = Handlers()
    made.on("t.note.v2", Note, nothing)
    made.upcast("t.note.v1", "t.note.v2", change)
    with pytest.raises(Unhandleable, match=r"cannot be read as t\.note\.v2"):
        made.read(attributes(), b"{}")


def test_versions_that_lead_in_a_circle_are_nobodys() -> None:
    made = Handlers()
    made.upcast("t.note.v1", "t.note.v2", dict)
    made.upcast("t.note.v2", "t.note.v1", dict)
    with pytest.raises(Unhandleable, match="in a circle"):
        made.read(attributes(), b"{}")


async def test_what_was_answered_is_handed_to_the_handler() -> None:
    heard: list[tuple[Note, int]] = []

    async def ask(event: Event, data: Note) -> int:
        return len(data.words)

    async def handle(event: Event, data: Note, answer: int) -> None:
        heard.append((data, answer))

    made = Handlers()
    made.on("t.note.v1", Note, handle, ask=ask)
    task = made.read(attributes(), b'{"words": "hello"}')
    await task.ask()
    await task.handle()
    assert heard == [(Note(words="hello"), 5)]


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (Unavailable("away"), False),
        (Conflict("another step first"), False),
        (TooMany("slower", retry_after_s=1), False),
        (ZeroDivisionError(), False),
        (Invalid("nonsense"), True),
        (NotFound("no such order"), True),
        (Forbidden("no"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_time_may_cure_is_tried_again(error: Exception, permanent: bool) -> None:
    assert is_permanent(error) is permanent
