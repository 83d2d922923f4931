"""What every route has in common, on an app of one small slice, without servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from showcase.kernel import trace
from showcase.kernel.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web import health
from showcase.platform.web.app import build
from showcase.platform.web.callers import require
from showcase.platform.web.idempotency import BadIdempotencyKey
from showcase.platform.web.paging import MAX_CURSOR, BadCursor, cursor_of, key_of
from showcase.platform.web.problems import status_of, type_of
from showcase.platform.web.server import server
from tests.fakes import settings_of

pytestmark = pytest.mark.anyio
LIMIT = 1_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TheTillIsShut(Conflict):
    """The till is shut."""


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: Annotated[str, Field(pattern=r"^[ -~]*$")]


def app_of(resources: Resources, authenticate: Any = None) -> FastAPI:
    router = APIRouter()

    @router.post("/echo")
    async def echo(words: Words) -> dict[str, str]:
        return {"words": words.words, "traceparent": trace.current()}

    @router.get("/broken")
    async def broken() -> None:
        raise LookupError("s3cret")

    @router.get("/shut")
    async def shut() -> None:
        raise TheTillIsShut("come back tomorrow", opens="08:00")

    @router.get("/away")
    async def away() -> None:
        raise Unavailable("not now", retry_after_s=7)

    @router.get("/mine")
    async def mine(caller: Annotated[Principal, require(Scope.ORDERS_READ)]) -> dict[str, str]:
        return {"subject": caller.subject}

    return build(resources, [Slice(name="small", routers=(router,))], authenticate)


@asynccontextmanager
async def client_of(**pings: Callable[[], Awaitable[object]]) -> AsyncIterator[httpx.AsyncClient]:
    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        return Principal(subject="households/7", scopes=frozenset({token}))

    async with Resources(settings_of({}, max_body_bytes=LIMIT)) as resources:
        resources.pings.update(pings)
        transport = httpx.ASGITransport(app_of(resources, authenticate))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of() as client:
        yield client


# -- problems


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Invalid, 422),
        (NotFound, 404),
        (Conflict, 409),
        (Unauthenticated, 401),
        (Forbidden, 403),
        (TooLarge, 413),
        (Unavailable, 503),
        (TheTillIsShut, 409),
    ],
)
def test_each_kind_of_error_has_its_status(kind: type[DomainError], status: int) -> None:
    assert status_of(kind) == status


def test_a_problem_type_is_the_name_of_the_error() -> None:
    assert type_of(TheTillIsShut) == "/problems/the-till-is-shut"
    assert type_of(type("NotAHousehold", (Forbidden,), {})) == "/problems/not-a-household"


async def test_a_domain_error_is_a_problem_document(client: httpx.AsyncClient) -> None:
    answer = await client.get("/shut")

    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()) == (
        409,
        {
            "type": "/problems/the-till-is-shut",
            "title": "The till is shut",
            "status": 409,
            "detail": "come back tomorrow",
            "opens": "08:00",
        },
    )


async def test_what_is_away_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/away")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")


async def test_a_bug_is_a_problem_that_tells_nothing_but_the_request_to_look_for(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await client.get("/broken", headers={"X-Request-Id": "find-me-later"})

    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert answer.headers["X-Request-Id"] == "find-me-later"
    assert "s3cret" not in answer.text


async def test_an_unknown_route_and_a_wrong_method_are_problems(client: httpx.AsyncClient) -> None:
    unknown, wrong = await client.get("/nowhere"), await client.put("/echo")

    assert (unknown.status_code, unknown.json()["type"]) == (404, "about:blank")
    assert (wrong.status_code, wrong.headers["Allow"], wrong.json()["status"]) == (405, "POST", 405)
    assert {one.headers["content-type"] for one in (unknown, wrong)} == {"application/problem+json"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"words": 1}',
        b'{"words": null}',
        b'{"words": "\xff"}',
        b'{"words": "\xed\xa0\x80"}',
        b'{"\\ud800": 1}',
        b'{"a/b~c": 1}',
        b'{"' + b"x" * 900 + b'": 1}',
        b'{"words": ' + b"[" * 900,
        b'{"words": ' + b"9" * 900 + b"}",
        b'{"words": 1e999}',
        b'{"words": NaN}',
        b"\x00",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_no_body_breaks_the_app(client: httpx.AsyncClient, body: bytes, content_type: str) -> None:
    answer = await client.post("/echo", content=body, headers={"Content-Type": content_type})

    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 1_000, "an error does not repeat what it was sent"


async def test_a_pointer_tells_where_the_request_is_wrong(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", json={"words": "x", "a/b~c": 1})

    assert [one["pointer"] for one in answer.json()["errors"]] == ["/body/a~1b~0c"]


# -- the envelope


@pytest.mark.parametrize("given", ["12345678", "A_b-" * 16])
async def test_a_good_request_id_is_given_back(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/health/live", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with space", "a\tb-12345678", '{"json": 1}'])
async def test_a_bad_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/health/live", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] != given
    assert len(answer.headers["X-Request-Id"]) == 36


async def test_the_trace_of_the_caller_goes_on_inside(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", json={"words": ""}, headers={"traceparent": PARENT})

    assert answer.json()["traceparent"] == answer.headers["traceparent"]
    assert answer.headers["traceparent"][:36] == PARENT[:36]
    assert answer.headers["traceparent"] != PARENT


def exactly(size: int) -> bytes:
    return json.dumps({"words": "x" * (size - 13)}).encode()


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_may_have_so_many_bytes_and_no_more(client: httpx.AsyncClient, announced: bool) -> None:
    seen = []
    for body in (exactly(LIMIT), exactly(LIMIT + 1)):
        content = body if announced else in_pieces(body)
        answer = await client.post("/echo", content=content, headers={"Content-Type": "application/json"})
        seen.append((answer.status_code, answer.json().get("type")))

    assert len(exactly(LIMIT)) == LIMIT
    assert seen == [(200, None), (413, "/problems/too-large")]


# -- callers


async def test_without_a_token_or_its_scope_nothing_is_told(client: httpx.AsyncClient) -> None:
    seen = []
    for given in ("", "Bearer", "Basic orders:read", "Bearer orders:write", "bearer orders:read"):
        answer = await client.get("/mine", headers={"Authorization": given})
        seen.append((answer.status_code, answer.json().get("type", answer.json().get("subject"))))
        assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)

    missing = (401, "/problems/missing-token")
    assert seen == [missing, missing, missing, (403, "/problems/missing-scope"), (200, "households/7")]


# -- health, documents


async def test_ready_names_what_does_not_answer_and_live_does_not_care(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PING_WITHIN_S", 0.05)
    ended = asyncio.Event()

    async def fine() -> None: ...

    async def away() -> None:
        raise Unavailable("s3cret address")

    async def hangs_when_cancelled() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        finally:
            ended.set()

    async with client_of(one=fine, two=away, three=hangs_when_cancelled) as client:
        async with asyncio.timeout(0.5):
            ready, live = await client.get("/health/ready"), await client.get("/health/live")
        await ended.wait()

    assert (live.status_code, ready.status_code) == (200, 503)
    checks = {"one": "ok", "two": "Unavailable: no answer", "three": "no answer"}
    assert ready.json() == {"status": "unavailable", "checks": checks}


async def test_what_may_be_away_is_told_and_does_not_matter() -> None:
    async def away() -> None:
        raise Unavailable("gone")

    app = FastAPI()
    app.include_router(health.routes({"cache": away}, spare={"cache"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as client:
        ready = await client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "checks": {"cache": "Unavailable: no answer"}}


async def test_the_page_of_the_interface_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text

    assert "http://" not in page
    assert "https://" not in page
    assets = [part.split('"')[0] for part in page.split('"/assets/')[1:]]
    assert sorted(assets) == ["favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css"]
    for path in ("/openapi.json", *(f"/assets/{name}" for name in assets)):
        assert (await client.get(path)).status_code == 200


# -- paging


def test_a_cursor_gives_back_its_key() -> None:
    assert key_of(cursor_of("ünï", 7), str, int) == ["ünï", 7]


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "ü", "bm9uc2Vuc2U", cursor_of(7), cursor_of("a", "b"), "W10", "bnVsbA", "_" * MAX_CURSOR],
)
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        key_of(cursor, str)


def test_true_is_no_number_in_a_cursor() -> None:
    with pytest.raises(BadCursor):
        key_of("W3RydWVd", int)


def test_a_key_of_nothing_is_invalid() -> None:
    assert status_of(BadIdempotencyKey) == 422


def test_a_connection_is_kept_longer_by_the_server_than_by_a_client() -> None:
    settings = settings_of({})
    serving, listening = server(build(Resources(settings), [], nobody), settings, host="127.0.0.1", port=0)
    listening.close()
    kept_by_client_s = httpx.Limits().keepalive_expiry

    assert kept_by_client_s is not None
    assert serving.config.timeout_keep_alive > 2 * kept_by_client_s


async def nobody(token: str, *, sensitive: bool = False) -> Principal:
    raise Unauthenticated("no such token")
