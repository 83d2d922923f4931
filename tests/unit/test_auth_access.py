"""Whether an access token still counts: each way of revoking, and what happens when nobody can tell."""

from itertools import product
from uuid import UUID, uuid4

import pytest

from showcase.auth.application.access import Access, Revocation
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal
from showcase.platform.web.problems import response_of

pytestmark = pytest.mark.anyio
SESSION = uuid4()
GOOD = "good"


class Everything:
    """The token's check, the denylist and the database, and what was asked of them.

    Args:
        memory: whether this process knows the session as denied; `redis`: whether Redis does; `live`: whether the
            database has it as living. None for a server that is away.
    """

    def __init__(
        self, *, memory: bool = False, in_sync: bool = True, redis: bool | None = False, live: bool | None = True
    ) -> None:
        self.memory = memory
        self.in_sync = in_sync
        self.redis = redis
        self.live = live
        self.asked: list[str] = []

    async def verify(self, token: str) -> Principal:
        if token == "bad":
            raise InvalidToken(Reason.EXPIRED)
        return Principal(subject="staff/ada", scopes=frozenset(), session_id=None if token == "operator" else SESSION)

    def is_denied(self, session_id: UUID) -> bool:
        assert session_id == SESSION
        return self.memory

    async def looked_up(self, session_id: UUID) -> bool:
        assert session_id == SESSION
        self.asked.append("redis")
        if self.redis is None:
            raise Unavailable("redis is away")
        return self.redis

    async def is_live(self, session_id: UUID) -> bool:
        assert session_id == SESSION
        self.asked.append("database")
        if self.live is None:
            raise Unavailable("the database is away")
        return self.live

    def access(self, revocation: Revocation) -> Access:
        return Access(verify=self, denylist=self, is_live=self.is_live, revocation=revocation)


async def outcome(everything: Everything, revocation: Revocation, *, sensitive: bool, token: str = GOOD) -> str:
    try:
        principal = await everything.access(revocation)(token, sensitive=sensitive)
    except InvalidToken as error:
        return error.reason.name
    except Unavailable:
        return "UNAVAILABLE"
    return principal.subject


PUSHED, LOOKED_UP, NONE = Revocation.PUSHED, Revocation.LOOKED_UP, Revocation.NONE


@pytest.mark.parametrize(("revocation", "sensitive"), list(product(Revocation, [False, True])))
async def test_a_bad_token_is_refused_before_anything_else(revocation: Revocation, sensitive: bool) -> None:
    everything = Everything(in_sync=False)

    assert await outcome(everything, revocation, sensitive=sensitive, token="bad") == "EXPIRED"
    assert everything.asked == []


@pytest.mark.parametrize(("revocation", "sensitive"), list(product(Revocation, [False, True])))
async def test_a_token_without_a_session_needs_nobody(revocation: Revocation, sensitive: bool) -> None:
    everything = Everything(memory=True, in_sync=False, redis=None, live=None)

    assert await outcome(everything, revocation, sensitive=sensitive, token="operator") == "staff/ada"
    assert everything.asked == []


@pytest.mark.parametrize("sensitive", [False, True])
async def test_pushed_looks_into_memory_only(sensitive: bool) -> None:
    live, ended = Everything(redis=None, live=None), Everything(memory=True, redis=None, live=None)

    assert await outcome(live, PUSHED, sensitive=sensitive) == "staff/ada"
    assert await outcome(ended, PUSHED, sensitive=sensitive) == "REVOKED"
    assert live.asked == ended.asked == []


@pytest.mark.parametrize("sensitive", [False, True])
async def test_looked_up_asks_redis_each_time(sensitive: bool) -> None:
    live, ended = Everything(live=None), Everything(redis=True, live=None)

    assert await outcome(live, LOOKED_UP, sensitive=sensitive) == "staff/ada"
    assert await outcome(live, LOOKED_UP, sensitive=sensitive) == "staff/ada"
    assert await outcome(ended, LOOKED_UP, sensitive=sensitive) == "REVOKED"
    assert live.asked == ["redis", "redis"]


@pytest.mark.parametrize("sensitive", [False, True])
async def test_none_asks_nobody_and_believes_a_token_of_an_ended_session(sensitive: bool) -> None:
    ended = Everything(memory=True, redis=True, live=False)

    assert await outcome(ended, NONE, sensitive=sensitive) == "staff/ada"
    assert ended.asked == []


AWAY = [
    pytest.param(PUSHED, Everything(in_sync=False), id="pushed, out of sync"),
    pytest.param(LOOKED_UP, Everything(redis=None), id="looked-up, redis away"),
    pytest.param(LOOKED_UP, Everything(in_sync=False), id="looked-up, redis may have lost some"),
]


@pytest.mark.parametrize(("revocation", "away"), AWAY)
async def test_what_is_sensitive_fails_closed_when_the_denylist_cannot_tell(
    revocation: Revocation, away: Everything
) -> None:
    away.live, away.asked = True, []

    assert await outcome(away, revocation, sensitive=True) == "UNAVAILABLE"
    assert "database" not in away.asked


@pytest.mark.parametrize(("revocation", "away"), AWAY)
@pytest.mark.parametrize(("live", "expected"), [(True, "staff/ada"), (False, "REVOKED"), (None, "UNAVAILABLE")])
async def test_otherwise_the_database_is_asked(
    revocation: Revocation, away: Everything, live: bool | None, expected: str
) -> None:
    away.live, away.asked = live, []

    assert await outcome(away, revocation, sensitive=False) == expected
    assert away.asked[-1] == "database"


@pytest.mark.parametrize("sensitive", [False, True])
async def test_what_memory_knows_as_denied_is_denied_even_out_of_sync(sensitive: bool) -> None:
    assert await outcome(Everything(memory=True, in_sync=False), PUSHED, sensitive=sensitive) == "REVOKED"


async def test_outside_nobody_can_tell_a_bad_token_from_one_of_an_ended_session() -> None:
    answers = []
    for everything, token in [(Everything(), "bad"), (Everything(memory=True), "good")]:
        with pytest.raises(InvalidToken) as refused:
            await everything.access(PUSHED)(token)
        response = response_of(refused.value)
        answers.append((response.status_code, response.body, response.headers["WWW-Authenticate"]))

    assert answers[0] == answers[1]
    assert 'error="invalid_token"' in answers[0][2]
