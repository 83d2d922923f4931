"""The command line: what is wrong is one line that helps, with an exit code; what is right is done."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from tests.integration.stacks import Ended
from tests.integration.system import System, system_on
from workshop.stack import Stack

KEY = "x" * 32
NOWHERE = "postgresql://shop:s3cret@127.0.0.1:1/shop"
EMPTY = "empty_for_a_test"

WRONG: dict[str, tuple[list[str], dict[str, str], int, str]] = {
    "a default secret": (
        ["token", "a", "--scope", "orders:read"],
        {"SHOWCASE_ENVIRONMENT": "production"},
        2,
        "SHOWCASE_SECRETS",
    ),
    "a short key": (["token", "a", "--scope", "orders:read"], {"SHOWCASE_SECRETS": "s3cret"}, 2, "32 bytes"),
    "a setting that cannot be": (
        ["token", "a", "--scope", "orders:read"],
        {"SHOWCASE_PREFETCH": "s3cret"},
        2,
        "SHOWCASE_PREFETCH",
    ),
    "an unknown scope": (["token", "a", "--scope", "everything"], {}, 2, "orders:write"),
    "a variable that is missing": (
        ["worker", "payment"],
        {"SHOWCASE_PAYMENT_POSTGRES_URL": ""},
        2,
        "SHOWCASE_PAYMENT_POSTGRES_URL is not set",
    ),
    "an unknown worker": (["worker", "baker"], {}, 2, "only relay, audit, capture, anchor, parking"),
    "an unknown slice": (["serve", "--slices", "shop,bread"], {}, 2, "there is no slice bread"),
    "a port that is taken": (["serve", "--slices", "shop", "--port", "TAKEN"], {}, 3, "Address already in use"),
    "no URL": (["migrate"], {"SHOWCASE_POSTGRES_URL": "s3cret"}, 2, "SHOWCASE_POSTGRES_URL is no URL"),
    "a URL of no server": (["migrate"], {"SHOWCASE_POSTGRES_URL": NOWHERE}, 1, "onnection refused"),
    "a port that is none": (
        ["serve", "--slices", "shop"],
        {"SHOWCASE_POSTGRES_URL": NOWHERE.replace(":1/", ":x/")},
        2,
        "SHOWCASE_POSTGRES_URL",
    ),
    "a broker's port that is none": (
        ["relay"],
        {"SHOWCASE_RABBITMQ_URL": "amqp://a:s3cret@127.0.0.1:x/v"},
        2,
        "SHOWCASE_RABBITMQ_URL",
    ),
    "no database to prune": (["prune"], {"SHOWCASE_POSTGRES_URL": NOWHERE}, 1, "database"),
}


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.slices = "auth"
        yield system


@pytest.fixture(scope="module")
def ended(system: System) -> dict[str, Ended]:
    """How each wrong command ended; all run side by side."""
    with socket.create_server(("127.0.0.1", 0)) as line, ThreadPoolExecutor(4) as pool:
        port = str(line.getsockname()[1])

        def run(what: str) -> Ended:
            command, variables, *_ = WRONG[what]
            return system.run(*(port if part == "TAKEN" else part for part in command), **variables)

        return dict(zip(WRONG, pool.map(run, WRONG), strict=True))


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_in_words_that_help_without_a_secret(ended: dict[str, Ended], what: str) -> None:
    _, _, code, words = WRONG[what]
    seen = ended[what]

    assert seen.code == code
    assert words in seen.errors
    assert "Traceback" not in seen.errors
    assert "s3cret" not in seen.errors
    assert seen.output == ""
    told = [line for line in seen.errors.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 or what in ("an unknown scope", "a port that is taken"), (
        "one line, but for what libraries tell"
    )


def test_an_empty_database_is_migrated_once_seeded_once_and_pruned(system: System) -> None:
    system.sql_alone(f"CREATE DATABASE {EMPTY}")
    url = system.postgres_url.rpartition("/")[0] + f"/{EMPTY}"
    try:
        for _ in range(2):
            assert system.run("migrate", SHOWCASE_POSTGRES_URL=url).code == 0
        with psycopg.connect(url) as db:
            query = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM payment.charges)"
            assert db.execute(query).fetchone() == (0, 0)
        pruned = system.run("prune", SHOWCASE_POSTGRES_URL=url)
        assert pruned.code == 0
        removed = dict(line.split(": ") for line in pruned.output.splitlines())
        assert {"public.outbox", "payment.inbox", "idempotency_keys"} <= set(removed)
        assert set(removed.values()) == {"0"}
    finally:
        system.sql_alone(f"DROP DATABASE {EMPTY} WITH (FORCE)")


def test_a_token_is_issued_for_whom_and_what_it_is_asked_for(system: System) -> None:
    scopes = ["--scope", "orders:read", "--scope", "orders:write"]
    issued = system.run("token", "households/7", *scopes)

    assert issued.code == 0
    (app,) = system.start("app")
    me = httpx.get(f"{app.url}/me", headers={"Authorization": f"Bearer {issued.output.strip()}"}).json()
    assert (me["subject"], me["scopes"], me["session_id"]) == ("households/7", ["orders:read", "orders:write"], None)


def test_keys_are_listed_rotated_and_revoked(system: System) -> None:
    def keys(*command: str) -> list[list[str]]:
        ended = system.run("keys", *command)
        assert ended.code == 0, ended
        return [line.split() for line in ended.output.splitlines()]

    before = {state: kid for state, _, kid in keys("list")}
    assert set(before) == {"next", "current"}
    after = {state: kid for state, _, kid in keys("rotate")}
    assert (after["retiring"], after["current"]) == (before["current"], before["next"])
    assert [before["current"], "retiring"] not in [[kid, state] for state, _, kid in keys("revoke", before["current"])]
    unknown = system.run("keys", "revoke", "-nobody")
    assert (unknown.code, "error: " in unknown.errors, "Traceback" in unknown.errors) == (1, True, False)
