"""Signing keys in PostgreSQL: several processes make, rotate and use one set of them, and nobody is refused."""

import asyncio
import base64
import multiprocessing
import queue
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from typing import Any
from uuid import UUID

import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import SecretStr

from showcase.auth.application.ports import Happened
from showcase.auth.domain.accounts import Device
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.auth.infrastructure.events import SqlEvents
from showcase.auth.infrastructure.jwk import Algorithm, SigningKey
from showcase.auth.infrastructure.keys import RETIRING_MARGIN, KeyRing, NoSuchKey, SqlKeys, State
from showcase.auth.infrastructure.secrets import Secrets, Unreadable
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.clock import system_clock
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal, Scope
from showcase.platform.database import Database
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
OLD, NEW = f"s1:{'a' * 32}", f"s2:{'b' * 32}"
LIFETIME = timedelta(minutes=5)
WITHIN_S = 30.0
PRINCIPAL = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_READ}))
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(stack: Stack) -> Iterator[str]:
    with stack.namespace() as names:
        yield names.env["SHOWCASE_POSTGRES_URL"]


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


def stored(database: Database, given: str = OLD, algorithm: Algorithm = "ES256") -> SqlKeys:
    return SqlKeys(database, Secrets(SecretStr(given)), SqlEvents(database), algorithm)


def tokens(ring: KeyRing) -> AccessTokens:
    return AccessTokens(ring, issuer="https://shop.example", audience="https://shop.example/api", clock=system_clock)


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as db:
        return db.execute(query.encode(), values).fetchall()


def change(url: str, statement: str, *values: object) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(statement.encode(), values)


def states(url: str) -> dict[str, str]:
    return dict(rows(url, "SELECT kid, state FROM auth.keys"))


async def current_of(keys: SqlKeys) -> str:
    return next(key.public.kid for key in await keys.load() if key.state is State.CURRENT)


# -- one set of keys


def make(url: str, barrier: Barrier, made: "Queue[list[str]]") -> None:
    """A process that makes keys when all others do."""

    async def run() -> None:
        database = Database(url)
        try:
            await database.ping()
            barrier.wait(WITHIN_S)
            ring = KeyRing(stored(database))
            await ring.current()
            made.put([jwk["kid"] for jwk in ring.jwks()["keys"]])
        finally:
            await database.close()

    asyncio.run(run())


def test_processes_that_start_together_make_one_set_of_keys(url: str) -> None:
    processes = 4
    barrier, made = SPAWN.Barrier(processes), SPAWN.Queue()
    started = [SPAWN.Process(target=make, args=(url, barrier, made), daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    found = [made.get(timeout=WITHIN_S) for _ in started]
    for process in started:
        process.join(WITHIN_S)

    assert [process.exitcode for process in started] == [0] * processes
    assert found == [found[0]] * processes
    assert sorted(states(url)) == sorted(found[0])
    assert sorted(states(url).values()) == ["current", "next"]


async def test_rotations_at_once_leave_one_current_and_one_next(url: str, database: Database) -> None:
    keys, rotations = stored(database), 8
    signing = await asyncio.gather(*(keys.rotate(LIFETIME) for _ in range(rotations)))

    assert len(set(signing)) == rotations
    assert sorted(states(url).values()) == ["current", "next"] + ["retiring"] * rotations


# -- rotation


async def test_a_rotation_is_seen_by_other_processes_and_refuses_no_token(database: Database) -> None:
    keys = stored(database)
    one, other = KeyRing(keys), KeyRing(stored(database))
    before = await tokens(one).issue(PRINCIPAL, LIFETIME)
    await other.reload()

    kid = await keys.rotate(LIFETIME)

    assert kid in {jwk["kid"] for jwk in other.jwks()["keys"]}, "it was published before it signed"
    await one.reload()
    after = await tokens(one).issue(PRINCIPAL, LIFETIME)
    assert jwt.get_unverified_header(after)["kid"] == kid
    for ring in (one, other):
        assert await tokens(ring).verify(before) == PRINCIPAL
        assert await tokens(ring).verify(after) == PRINCIPAL
    await other.reload()
    assert (await other.current()).public.kid == kid


async def test_a_key_retires_when_its_last_token_has_ended(url: str, database: Database) -> None:
    keys, ring = stored(database), KeyRing(stored(database))
    token = await tokens(ring).issue(PRINCIPAL, LIFETIME)
    kid = jwt.get_unverified_header(token)["kid"]
    await keys.rotate(LIFETIME)
    ((kept,),) = rows(url, "SELECT retires_at - now() FROM auth.keys WHERE kid = %s", kid)
    assert timedelta() < LIFETIME + RETIRING_MARGIN - kept < timedelta(seconds=WITHIN_S)
    assert await keys.prune() == 0

    change(url, "UPDATE auth.keys SET retires_at = clock_timestamp() WHERE kid = %s", kid)
    await ring.reload()
    with pytest.raises(InvalidToken) as refused:
        await tokens(ring).verify(token)

    assert refused.value.reason is Reason.UNKNOWN_KEY
    assert await keys.prune() == 1
    assert sorted(states(url).values()) == ["current", "next"]


async def test_another_algorithm_is_that_of_the_keys_made_from_now_on(database: Database) -> None:
    before, now = stored(database), stored(database, algorithm="EdDSA")
    ring = KeyRing(now)
    await before.ensure()
    issued = []
    for expected in ("ES256", "ES256", "EdDSA"):
        await ring.reload()
        issued.append(await tokens(ring).issue(PRINCIPAL, LIFETIME))
        assert jwt.get_unverified_header(issued[-1])["alg"] == expected
        await now.rotate(LIFETIME)
    await ring.reload()
    for token in issued:
        assert await tokens(ring).verify(token) == PRINCIPAL


async def test_a_rotation_and_its_event_happen_together(url: str, database: Database) -> None:
    class NoEvents(SqlEvents):
        async def add(
            self,
            happened: Happened,
            *,
            actor: str = "",
            account_id: UUID | None = None,
            session_id: UUID | None = None,
            device: Device | None = None,
            reason: str = "",
            **data: object,
        ) -> None:
            raise Unavailable("no events")

    keys = stored(database)
    await keys.ensure()
    before = states(url)
    silent = SqlKeys(database, Secrets(SecretStr(OLD)), NoEvents(database), "ES256")
    with pytest.raises(Unavailable):
        await silent.rotate(LIFETIME)
    assert states(url) == before

    kid = await keys.rotate(LIFETIME, actor="staff/ada")
    found = rows(url, "SELECT type, actor, data ->> 'kid', data ->> 'retired' FROM auth.events")
    assert found == [("key.rotated", "staff/ada", kid, next(one for one in before if before[one] == "current"))]


async def test_a_revoked_key_is_gone_at_once_and_the_next_one_signs(url: str, database: Database) -> None:
    keys, ring = stored(database), KeyRing(stored(database))
    token = await tokens(ring).issue(PRINCIPAL, LIFETIME)
    stolen = await current_of(keys)
    (expected,) = (kid for kid, state in states(url).items() if state == "next")

    await keys.revoke(stolen, actor="staff/ada")
    await ring.reload()

    assert (await ring.current()).public.kid == expected
    with pytest.raises(InvalidToken):
        await tokens(ring).verify(token)
    assert stolen not in states(url)
    assert sorted(states(url).values()) == ["current", "next"]
    assert rows(url, "SELECT reason, data ->> 'kid' FROM auth.events") == [("revoked", stolen)]
    with pytest.raises(NoSuchKey):
        await keys.revoke(stolen)


# -- at rest


async def test_private_keys_are_sealed(url: str, database: Database) -> None:
    keys = stored(database)
    await keys.ensure()
    for key in await keys.load():
        plain = keys.open(key)
        assert plain.public == key.public
        ((row,),) = rows(url, "SELECT stored::text FROM auth.keys stored WHERE kid = %s", key.public.kid)
        assert isinstance(plain.private, EllipticCurvePrivateKey)
        private = plain.private.private_numbers().private_value.to_bytes(32, "big")
        assert key.sealed.hex() in row
        for secret in (private, plain.der()):
            assert secret.hex() not in row
            assert base64.b64encode(secret).decode() not in row
        with pytest.raises(Unreadable):
            stored(database, "s1:" + "c" * 32).open(key)


async def test_a_sealed_key_cannot_be_moved_to_another_name(url: str, database: Database) -> None:
    keys = stored(database)
    await keys.ensure()
    change(url, "UPDATE auth.keys SET private_sealed = (SELECT private_sealed FROM auth.keys WHERE state = 'next')")
    for key in await keys.load():
        if key.state is State.CURRENT:
            with pytest.raises(Unreadable):
                keys.open(key)


async def test_a_new_secret_in_front_seals_new_keys_and_old_ones_still_sign(url: str, database: Database) -> None:
    before = await tokens(KeyRing(stored(database))).issue(PRINCIPAL, LIFETIME)
    both = stored(database, f"{NEW},{OLD}")
    ring = KeyRing(both)

    after = await tokens(ring).issue(PRINCIPAL, LIFETIME)
    assert jwt.get_unverified_header(after)["kid"] == jwt.get_unverified_header(before)["kid"]
    for _ in range(2):
        await both.rotate(LIFETIME)
    alone = KeyRing(stored(database, NEW))
    assert await tokens(alone).verify(await tokens(alone).issue(PRINCIPAL, LIFETIME)) == PRINCIPAL
    assert await tokens(alone).verify(before) == PRINCIPAL


async def test_a_key_that_somebody_changed_in_the_table_is_not_believed(url: str, database: Database) -> None:
    keys = stored(database)
    ring = KeyRing(keys)
    good = await tokens(ring).issue(PRINCIPAL, LIFETIME)
    stranger = SigningKey.new("ES256")
    x, y = stranger.public.jwk["x"], stranger.public.jwk["y"]
    change(
        url, "UPDATE auth.keys SET public_jwk = public_jwk || jsonb_build_object('x', %s::text, 'y', %s::text)", x, y
    )

    with pytest.raises(Unavailable):
        await ring.reload()
    assert await tokens(ring).verify(good) == PRINCIPAL


# -- under traffic


def exchange(
    url: str, reload_s: float, out: "Queue[str]", incoming: "Queue[str]", told: "Queue[tuple[str, str]]", stop: Event
) -> None:
    """A process that issues tokens for another, and checks those of the other until told to stop.

    Args:
        reload_s: how often it loads the keys; in between it has to notice by itself.
        told: gets every `kid` when first seen, and every refusal.
    """

    async def run() -> None:
        database = Database(url)
        ring = KeyRing(stored(database))
        ours, seen, reloaded_s = tokens(ring), set(), 0.0
        try:
            while not stop.is_set():
                if time.monotonic() - reloaded_s > reload_s:
                    await ring.reload()
                    reloaded_s = time.monotonic()
                if out.qsize() < 50:
                    out.put(await ours.issue(PRINCIPAL, LIFETIME))
                try:
                    token = await asyncio.to_thread(incoming.get, True, 0.05)
                except queue.Empty:
                    continue
                kid = jwt.get_unverified_header(token)["kid"]
                try:
                    assert await ours.verify(token) == PRINCIPAL
                except (InvalidToken, Unavailable) as error:
                    told.put(("refused", f"{kid}: {getattr(error, 'reason', error)}"))
                if kid not in seen:
                    seen.add(kid)
                    told.put(("verified", kid))
        finally:
            await database.close()
            for line in (out, told):
                line.close()
            out.cancel_join_thread()  # the other may read no more

    asyncio.run(run())


async def test_rotations_under_traffic_of_two_processes_refuse_nobody(url: str, database: Database) -> None:
    keys, rotations = stored(database), 10
    await keys.ensure()
    to_quick, to_slow, told, stop = SPAWN.Queue(), SPAWN.Queue(), SPAWN.Queue(), SPAWN.Event()
    quick = SPAWN.Process(target=exchange, args=(url, 0.05, to_slow, to_quick, told, stop), daemon=True)
    slow = SPAWN.Process(target=exchange, args=(url, 3_600, to_quick, to_slow, told, stop), daemon=True)
    for process in (quick, slow):
        process.start()
    seen: list[tuple[str, str]] = []

    def wait_for_both(kid: str) -> None:
        """Only the quick one signs with a new key at once; it is the slow one that comes to verify it."""
        deadline = time.monotonic() + WITHIN_S
        while ("verified", kid) not in seen:
            seen.append(told.get(timeout=deadline - time.monotonic()))

    try:
        await asyncio.to_thread(wait_for_both, await current_of(keys))
        for _ in range(rotations):
            await asyncio.to_thread(wait_for_both, await keys.rotate(LIFETIME))
    finally:
        stop.set()
        for process in (quick, slow):
            process.join(WITHIN_S)
    while not told.empty():
        seen.append(told.get(timeout=1))

    assert [what for what in seen if what[0] == "refused"] == []
    assert [process.exitcode for process in (quick, slow)] == [0, 0]
    assert len({kid for _, kid in seen}) == rotations + 1
