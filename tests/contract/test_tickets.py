"""One contract for all tickets: those in memory and those in Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.realtime.application.ports import BadTicket, Tickets
from showcase.realtime.infrastructure.tickets import RedisTickets
from tests.fakes import settings_of, until
from tests.fakes_realtime import MemoryTickets
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
LIFETIME = timedelta(seconds=30)
SHOPPER = Principal(
    subject="households/7",
    scopes=frozenset({Scope.ORDERS_READ}),
    session_id=UUID("0199a5c0-0000-7000-8000-000000000001"),
    expires_at=datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC),
)


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with Stack.attach() as stack:
        yield stack


@pytest.fixture
async def redis(running: Stack) -> AsyncIterator[tuple[Resources, str]]:
    with running.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            yield resources, names.redis_prefix


@pytest.fixture(params=["memory", "redis"])
def tickets(request: pytest.FixtureRequest) -> Tickets:
    if request.param == "memory":
        return MemoryTickets()
    resources, prefix = request.getfixturevalue("redis")
    return RedisTickets(resources.redis_state, prefix=prefix, lifetime=LIFETIME)


@pytest.mark.parametrize("principal", [SHOPPER, Principal(subject="operators/x", scopes=frozenset())])
async def test_ticket_is_whose_it_was_issued_to(tickets: Tickets, principal: Principal) -> None:
    redeemed = await tickets.redeem(await tickets.issue(principal))

    assert redeemed == principal
    assert redeemed.expires_at == principal.expires_at, "by which principals are not compared"


async def test_ticket_works_once(tickets: Tickets) -> None:
    ticket = await tickets.issue(SHOPPER)
    await tickets.redeem(ticket)

    with pytest.raises(BadTicket):
        await tickets.redeem(ticket)


async def test_of_many_who_redeem_a_ticket_at_once_one_does(tickets: Tickets) -> None:
    ticket = await tickets.issue(SHOPPER)

    answers = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(20)), return_exceptions=True)

    assert answers.count(SHOPPER) == 1
    assert sum(isinstance(answer, BadTicket) for answer in answers) == 19


@pytest.mark.parametrize("ticket", ["", "guess", "ü" * 200])
async def test_what_nobody_issued_is_no_ticket(tickets: Tickets, ticket: str) -> None:
    await tickets.issue(SHOPPER)

    with pytest.raises(BadTicket):
        await tickets.redeem(ticket)


async def test_no_two_tickets_are_alike(tickets: Tickets) -> None:
    assert len({await tickets.issue(SHOPPER) for _ in range(100)}) == 100


async def test_ticket_in_redis_cannot_be_read_there_and_goes_by_itself(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    ticket = await RedisTickets(resources.redis_state, prefix=prefix, lifetime=LIFETIME).issue(SHOPPER)

    (key,) = [key async for key in resources.redis_state.scan_iter(f"{prefix}*")]

    assert ticket not in key + str(await resources.redis_state.get(key))
    assert 0 < await resources.redis_state.pttl(key) <= 30_000


async def test_ticket_that_has_expired_is_none(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    tickets = RedisTickets(resources.redis_state, prefix=prefix, lifetime=timedelta(milliseconds=20))
    ticket = await tickets.issue(SHOPPER)

    async def is_gone() -> bool:
        return not [key async for key in resources.redis_state.scan_iter(f"{prefix}*")]

    await until(is_gone)
    with pytest.raises(BadTicket):
        await tickets.redeem(ticket)
