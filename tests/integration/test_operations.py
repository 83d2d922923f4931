"""Operations in a running system: what consumers, the broker and the relay have parked; over HTTP and by hand."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pika
import pytest

from showcase.kernel.events import Event
from showcase.kernel.principal import Scope
from showcase.messaging.domain import DEAD, DELIVERY_LIMIT, EVENTS
from showcase.platform.web.paging import cursor_of
from tests.integration.stacks import Ended
from tests.integration.system import System, at_once, problem_of, system_on, wait_for
from workshop.stack import Stack

SUPPORT = frozenset({Scope.SUPPORT})
PLACED = "shop.order.placed.v1"


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    """Two apps, and what moves messages. Nobody consumes `stock` and `notice`."""
    with system_on(stack) as system:
        system.slices = "messaging"
        system.start("app", "app", "parking", "relay", "payment")
        yield system


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    headers = system.headers("staff/ada", SUPPORT)
    with httpx.Client(base_url=system.started[0].url, timeout=15, headers=headers) as client:
        yield client


class Stranger:
    """Somebody with a connection to the broker, and no manners."""

    def __init__(self, system: System) -> None:
        parameters = pika.URLParameters(system.environment["SHOWCASE_RABBITMQ_URL"])
        parameters.heartbeat = 0  # nobody answers them while a test waits
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()

    def send(self, exchange: str, key: str, event: Event, body: bytes | None = None, **headers: object) -> str:
        """Send an event; its id."""
        named = {f"cloudEvents:{name}": value for name, value in event.attributes().items()}
        properties = pika.BasicProperties(headers=named | headers, content_type="application/json", delivery_mode=2)
        self.channel.basic_publish(exchange, key, event.body() if body is None else body, properties)
        return event.id


@pytest.fixture(scope="module")
def stranger(system: System) -> Iterator[Stranger]:
    stranger = Stranger(system)
    yield stranger
    stranger.connection.close()


def event(type_: str = PLACED, **data: object) -> Event:
    return Event(type=type_, source="/stranger", subject=f"orders/{uuid4()}", data=data)


def entries(client: httpx.Client, event_id: str, **which: str) -> list[dict[str, Any]]:
    """What is listed of an event, the newest first."""
    page = client.get("/messaging/parked", params={"limit": "200", **which}).raise_for_status().json()
    return [entry for entry in page["items"] if entry["event_id"] == event_id]


def listed(client: httpx.Client, event_id: str) -> dict[str, Any]:
    """The only entry of an event, once it is there."""
    wait_for(lambda: entries(client, event_id))
    (entry,) = entries(client, event_id)
    return entry


def parked(client: httpx.Client, stranger: Stranger, queue: str = "stock", type_: str = PLACED) -> dict[str, Any]:
    """An entry of a message that a consumer has parked."""
    said: dict[str, Any] = {"x-queue": queue, "x-reason": "broken", "x-attempt": 4}
    return listed(client, stranger.send(DEAD, "", event(type_), **said))


def actions(system: System, id_: str) -> list[tuple[str, str, str]]:
    query = "SELECT actor, action, reason FROM messaging.actions WHERE parked_id = %s ORDER BY action_id"
    return [(actor, action, reason) for actor, action, reason in system.sql(query, id_)]


def replays_of(system: System, event_id: str) -> int:
    """How many replays of an event have ever been in the outbox."""
    query = "SELECT count(*) FROM outbox WHERE attributes ->> 'id' = %s AND headers ? 'x-replays'"
    return int(system.one(query, event_id))


# -- how messages get there, and back


def test_a_message_that_its_consumer_cannot_handle_is_listed_replayed_and_listed_again(
    system: System, client: httpx.Client, stranger: Stranger
) -> None:
    id_ = stranger.send(EVENTS, PLACED, broken := event(), b'{"order_id": 7}', sender="a stranger")

    entry = listed(client, id_)
    assert (entry["queue"], entry["type"], entry["replays"], entry["state"]) == ("payment", PLACED, 0, "parked")
    assert PLACED in entry["reason"]
    shown = client.get(f"/messaging/parked/{entry['id']}").json()
    assert shown["attributes"] == broken.attributes()
    assert (shown["body"], shown["body_encoding"]) == ('{"order_id": 7}', "text")
    assert shown["headers"]["x-reason"] == entry["reason"]

    assert client.post(f"/messaging/parked/{entry['id']}/replay").status_code == 204
    wait_for(lambda: len(entries(client, id_)) == 1 and entries(client, id_)[0]["id"] != entry["id"])
    assert entries(client, id_)[0]["replays"] == 1
    assert client.get(f"/messaging/parked/{entry['id']}").json()["state"] == "replayed"
    assert actions(system, entry["id"]) == [("staff/ada", "replay", "")]


def test_a_message_that_the_broker_gives_up_is_listed_with_the_reason_in_words(
    client: httpx.Client, stranger: Stranger
) -> None:
    id_ = stranger.send("", "notice", event())
    deliveries = 0

    def dies_with_it() -> bool:
        nonlocal deliveries
        method, _, _ = stranger.channel.basic_get("notice")
        if method is not None:
            deliveries += 1
            stranger.channel.basic_nack(method.delivery_tag, requeue=True)
        return deliveries > DELIVERY_LIMIT

    wait_for(dies_with_it)
    entry = listed(client, id_)
    assert entry["queue"] == "notice"
    assert "its consumer died with it" in entry["reason"]


def test_what_no_event_is_is_kept_byte_for_byte(client: httpx.Client, stranger: Stranger) -> None:
    strange = pika.BasicProperties(headers={"x-queue": "stock\x00", "x-reason": b"\xff", "no": [1, {"deep": None}]})
    stranger.channel.basic_publish(DEAD, "", b"\xff\x00\xfe", strange)

    wait_for(lambda: entries(client, ""))
    (entry,) = entries(client, "")
    shown = client.get(f"/messaging/parked/{entry['id']}").json()
    assert (shown["body"], shown["body_encoding"]) == ("/wD+", "base64")
    assert shown["headers"]["no"] == [1, {"deep": None}]
    assert problem_of(client.post(f"/messaging/parked/{entry['id']}/replay")) == (409, "no-such-queue")
    reason = {"reason": "no event"}
    assert client.post(f"/messaging/parked/{entry['id']}/discard", json=reason).status_code == 204


def test_a_message_that_cannot_be_published_is_listed_released_and_given_up(
    system: System, client: httpx.Client
) -> None:
    lost = event()
    add = "INSERT INTO outbox (attributes, body, exchange, routing_key) VALUES (%s, %s, '', 'gone') RETURNING position"
    position = system.one(add, json.dumps(lost.attributes()), lost.body())
    entry = listed(client, lost.id)
    assert (entry["id"], entry["queue"]) == (f"outbox:public:{position}", "outbox:public")
    assert entry["reason"] == "no queue takes it"

    assert client.post(f"/messaging/parked/{entry['id']}/replay").status_code == 204
    wait_for(lambda: entries(client, lost.id, queue="outbox:public") not in ([], [entry]))  # parked once more
    assert client.post(f"/messaging/parked/{entry['id']}/discard", json={"reason": "lost"}).status_code == 204
    assert problem_of(client.get(f"/messaging/parked/{entry['id']}")) == (404, "no-such-message")
    assert system.sql("SELECT position FROM outbox WHERE position = %s", position) == []
    assert actions(system, entry["id"]) == [("staff/ada", "replay", ""), ("staff/ada", "discard", "lost")]


# -- two processes at once


def test_a_message_replayed_in_two_processes_at_once_goes_once(
    system: System, client: httpx.Client, stranger: Stranger
) -> None:
    entry = parked(client, stranger)
    apps = system.running("app")

    def replay(number: int) -> httpx.Response:
        url = f"{apps[number % 2].url}/messaging/parked/{entry['id']}/replay"
        return httpx.post(url, headers=system.headers("staff/ada", SUPPORT), timeout=15)

    answers = at_once(8, replay)
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 7
    assert {problem_of(answer) for answer in answers if answer.is_error} == {(409, "already-settled")}
    assert replays_of(system, entry["event_id"]) == 1
    assert actions(system, entry["id"]) == [("staff/ada", "replay", "")]


def test_all_of_a_filter_replayed_by_two_processes_at_once_go_once_each(
    system: System, client: httpx.Client, stranger: Stranger
) -> None:
    many = [parked(client, stranger, type_="many.v1") for _ in range(25)]
    other = parked(client, stranger, type_="other.v1")
    apps = system.running("app")

    def replay(number: int) -> httpx.Response:
        headers, which = system.headers("staff/ada", SUPPORT), {"queue": "stock", "type": "many.v1"}
        return httpx.post(f"{apps[number % 2].url}/messaging/replays", json=which, headers=headers, timeout=15)

    answers = [answer.raise_for_status().json() for answer in at_once(2, replay)]
    assert sum(answer["replayed"] for answer in answers) == len(many)
    assert {replays_of(system, entry["event_id"]) for entry in many} == {1}
    assert entries(client, other["event_id"]) == [other]


# -- what is refused


REFUSED: dict[str, tuple[str, str, Any, int, str]] = {
    "no such id": ("POST", f"parked/{uuid4()}/replay", None, 404, "no-such-message"),
    "an id that is none": ("GET", "parked/%00", None, 404, "no-such-message"),
    "an outbox that is none": ("POST", "parked/outbox:pg_catalog:1/replay", None, 404, "no-such-message"),
    "SQL for an id": ("POST", "parked/outbox:public:1;DROP/replay", None, 404, "no-such-message"),
    "an id of any size": ("POST", f"parked/{'x' * 101}/replay", None, 422, "invalid-request"),
    "no reason": ("POST", "parked/ID/discard", {}, 422, "invalid-request"),
    "an empty reason": ("POST", "parked/ID/discard", {"reason": " "}, 422, "bad-reason"),
    "a reason of any size": ("POST", "parked/ID/discard", {"reason": "x" * 501}, 422, "bad-reason"),
    "a NUL in the reason": ("POST", "parked/ID/discard", {"reason": "a\x00"}, 422, "bad-reason"),
    "more than a reason": ("POST", "parked/ID/discard", {"reason": "x", "actor": "bob"}, 422, "invalid-request"),
    "a queue that is none": ("POST", "replays", {"queue": "paiment"}, 409, "no-such-queue"),
    "a filter of any size": ("POST", "replays", {"type": "x" * 256}, 422, "invalid-request"),
    "a NUL in the filter": ("POST", "replays", {"type": "\x00"}, 422, "invalid-request"),
    "no filter but a list": ("POST", "replays", [], 422, "invalid-request"),
    "a NUL in the query": ("GET", "parked?queue=%00", None, 422, "invalid-request"),
    "a page of any size": ("GET", "parked?limit=201", None, 422, "invalid-request"),
    "a cursor of somebody else": ("GET", f"parked?cursor={cursor_of(str(uuid4()))}", None, 422, "bad-cursor"),
    "a cursor of no time": ("GET", f"parked?cursor={cursor_of('now', 'x')}", None, 422, "bad-cursor"),
}


@pytest.fixture(scope="module")
def spared(client: httpx.Client, stranger: Stranger) -> dict[str, Any]:
    """An entry that stays."""
    return parked(client, stranger)


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(
    system: System, client: httpx.Client, spared: dict[str, Any], what: str
) -> None:
    method, path, body, status, kind = REFUSED[what]
    before = system.one("SELECT count(*) FROM messaging.actions")

    answer = client.request(method, f"/messaging/{path.replace('ID', spared['id'])}", json=body)
    assert problem_of(answer) == (status, kind)
    assert entries(client, spared["event_id"]) == [spared]
    assert system.one("SELECT count(*) FROM messaging.actions") == before


def test_every_route_needs_the_scope_and_tells_its_problems(system: System, client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    routes = [(method, path) for path in paths if path.startswith("/messaging") for method in paths[path]]
    assert len(routes) == 7

    others = system.headers("staff/ada", frozenset(Scope) - SUPPORT)
    for method, path in routes:
        address = f"{client.base_url}{path.replace('{message_id}', str(uuid4()))}"
        assert problem_of(httpx.request(method, address)) == (401, "missing-token")
        assert problem_of(httpx.request(method, address, headers=others)) == (403, "missing-scope")
        assert {"401", "403", "503"} <= set(paths[path][method]["responses"])


# -- what is seen


def test_queues_outboxes_and_metrics_agree_with_what_is_there(
    system: System, client: httpx.Client, stranger: Stranger
) -> None:
    entry = parked(client, stranger, "notice")
    stranger.send("", "notice", event())

    def depth() -> int:
        return int(stranger.channel.queue_declare("notice", passive=True).method.message_count)

    wait_for(depth)
    queues = {queue["name"]: queue for queue in client.get("/messaging/queues").json()}
    assert {"payment", "stock", "notice", "shop", "realtime", "parking", "retry.1s"} <= set(queues)
    assert (queues["notice"]["ready"], queues["notice"]["consumers"]) == (depth(), 0)
    assert (queues["payment"]["consumers"], queues["parking"]["consumers"]) == (1, 1)
    outboxes = client.get("/messaging/outboxes").json()
    assert {"outbox": "payment", "waiting": 0, "oldest_s": None, "parked": 0} in outboxes

    def figure() -> int:
        lines = httpx.get(f"{client.base_url}/metrics").text.splitlines()  # without a token
        return int(next(line for line in lines if line.startswith('showcase_parked_messages{queue="notice"}'))[-1:])

    there = "SELECT count(*) FROM messaging.parked WHERE state = 'parked' AND queue = 'notice'"
    wait_for(lambda: figure() == system.one(there))
    assert entry["queue"] == "notice"


def test_rates_come_from_what_the_broker_has_measured(client: httpx.Client, stranger: Stranger) -> None:
    def rate() -> float:
        stranger.send("", "notice", event())
        queues = {queue["name"]: queue for queue in client.get("/messaging/queues").json()}
        return float(queues["notice"]["in_per_s"] or 0)

    wait_for(lambda: rate() > 0)


# -- the command line


def test_the_command_line_does_what_the_routes_do(system: System, client: httpx.Client, stranger: Stranger) -> None:
    first, last = parked(client, stranger, type_="cli.v1"), parked(client, stranger, type_="cli.v1")

    table = system.run("messages", "parked", "--type", "cli.v1", "--limit", "1")
    names, row, more = table.output.splitlines()
    assert names.split() == ["id", "queue", "type", "parked", "(UTC)", "reason"]
    assert row.split()[:3] == [last["id"], "stock", "cli.v1"]
    rest = system.run("messages", "parked", "--type", "cli.v1", *more.split()[-2:])
    assert [line.split()[0] for line in rest.output.splitlines()[1:]] == [first["id"]]
    assert json.loads(system.run("messages", "show", first["id"]).output) == (
        client.get(f"/messaging/parked/{first['id']}").json()
    )

    assert system.run("messages", "replay", first["id"]).output == "1 replayed\n"
    assert actions(system, first["id"]) == [("operator", "replay", "")]
    assert system.run("messages", "discard", last["id"], "--reason", "a test").output == "1 discarded\n"
    assert actions(system, last["id"]) == [("operator", "discard", "a test")]
    assert system.run("messages", "replay-all", "--type", "cli.v1").output == "0 replayed\n"


COMMANDS: dict[str, tuple[list[str], int, str]] = {
    "an id that is none": (["replay", "nonsense"], 1, "error: there is no parked message 'nonsense'"),
    "an empty reason": (["discard", str(uuid4()), "--reason", ""], 1, "error: say why in one line"),
    "no reason": (["discard", str(uuid4())], 2, "--reason"),
    "a queue that is none": (["replay-all", "--queue", "paiment"], 1, "error: there is no queue 'paiment'"),
    "a cursor that is none": (["parked", "--cursor", "nonsense"], 1, "error: begin with the first page again"),
    "queues": (["queues"], 0, ""),
    "outboxes": (["outboxes"], 0, ""),
}


@pytest.fixture(scope="module")
def ended(system: System) -> dict[str, Ended]:
    """How each command ended; all run side by side."""
    with ThreadPoolExecutor(4) as pool:
        commands = (command for command, _, _ in COMMANDS.values())
        return dict(zip(COMMANDS, pool.map(lambda command: system.run("messages", *command), commands), strict=True))


@pytest.mark.parametrize("what", [what for what, (_, code, _) in COMMANDS.items() if code])
def test_what_cannot_be_is_one_line_on_the_command_line(ended: dict[str, Ended], what: str) -> None:
    _, code, words = COMMANDS[what]
    assert (ended[what].code, ended[what].output) == (code, "")
    assert words in ended[what].errors
    assert "Traceback" not in ended[what].errors


def test_queues_and_outboxes_are_tables(ended: dict[str, Ended]) -> None:
    queues, outboxes = (ended[what].output.splitlines() for what in ("queues", "outboxes"))
    assert queues[0].split() == ["queue", "ready", "consumers", "in/s", "out/s"]
    assert "payment" in [line.split()[0] for line in queues]
    assert [line.split()[0] for line in outboxes] == ["outbox", "public", "payment", "stock", "notice"]
