"""Sessions on a real database, as their tests build them; what they ask of other rooms is plain to see here."""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from pydantic import SecretStr
from sqlalchemy import text

from showcase.auth.application.ports import Tokens
from showcase.auth.application.session_store import Rules
from showcase.auth.application.sessions import Sessions
from showcase.auth.domain.accounts import PASSWORD, Account, Device, Role
from showcase.auth.domain.refresh import Policy
from showcase.auth.infrastructure.events import SqlEvents
from showcase.auth.infrastructure.secrets import Secrets
from showcase.auth.infrastructure.sessions import SqlSessions
from showcase.kernel.principal import Principal
from showcase.platform.database import Database
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

LEEWAY = timedelta(seconds=10)
IDLE = timedelta(days=14)
LIFETIME = timedelta(days=20)
ACCESS = timedelta(minutes=5)
SECRET = "t1:a secret of the tests that is long enough to be one"
HOME = Device(address="192.0.2.7", name="Firefox")
ELSEWHERE = Device(address="203.0.113.9", name="curl")

Between = Callable[[], Awaitable[object]]


class PlainTokens:
    """Access tokens that can be read: JSON.

    Attributes:
        between: is done once, before the next token: that lies between the look at a refresh token and its rotation.
    """

    def __init__(self) -> None:
        self.between: Between | None = None

    async def issue(self, principal: Principal, lifetime: timedelta) -> str:
        between, self.between = self.between, None
        if between:
            await between()
        claims = {
            "sub": principal.subject,
            "sid": str(principal.session_id),
            "scope": sorted(principal.scopes),
            "acr": principal.acr,
            "amr": list(principal.amr),
            "auth_time": principal.auth_time.isoformat() if principal.auth_time else None,
        }
        return json.dumps(claims)


class PlainMails:
    """Letters in the table where they wait, and readable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, recipient: str | None, subject: str, text_: str) -> None:
        row = {"id": uuid4(), "recipient": recipient, "body": f"{subject}\n{text_}".encode()}
        async with self._database.transaction() as db:
            await db.execute(_MAIL, row)


_MAIL = text("INSERT INTO auth.mails (mail_id, recipient, body) VALUES (:id, :recipient, :body)")


def claims(tokens: Tokens) -> dict[str, Any]:
    """What an access token says."""
    found: dict[str, Any] = json.loads(tokens.access_token)
    return found


@contextmanager
def database_on(stack: Stack) -> Iterator[str]:
    """The URL of a database that is migrated, and gone at the end."""
    name = "SHOWCASE_POSTGRES_URL"
    with Namespace.create({name: stack.urls[name]}) as names:
        yield names.postgres_url


class World:
    """Sessions in a database, and a way to look past them.

    Args:
        url: of a migrated database.

    Attributes:
        denied: the sessions that every process was told of.
    """

    def __init__(
        self, url: str, policy: Policy = Policy.SAME_SUCCESSOR, *, secrets: str = SECRET, **rules: timedelta
    ) -> None:
        self.url = url
        self.policy = policy
        self.database = Database(url)
        self._past = psycopg.connect(url, autocommit=True)
        self.store = SqlSessions(self.database)
        self.tokens = PlainTokens()
        self.denied: list[UUID] = []
        limits = {"access": ACCESS, "idle": IDLE, "session": LIFETIME, "leeway": LEEWAY} | rules
        self.sessions = Sessions(
            store=self.store,
            transaction=self.database.transaction,
            events=SqlEvents(self.database),
            mails=PlainMails(self.database),
            tokens=self.tokens,
            keys=Secrets(SecretStr(secrets)),
            deny=self._deny,
            rules=Rules(policy=policy, **limits),
        )

    async def _deny(self, session_ids: Sequence[UUID]) -> None:
        self.denied.extend(session_ids)

    async def close(self) -> None:
        await self.database.close()
        self._past.close()

    def account(self, role: Role = Role.CUSTOMER) -> Account:
        """Somebody new who can sign in."""
        id_ = uuid4()
        account = Account(
            id=id_, email=f"{id_.hex}@example.org", subject=f"staff/{id_.hex}", role=role, password_hash=""
        )
        self.do(
            "INSERT INTO auth.accounts (account_id, email, subject, role, password_hash) VALUES (%s, %s, %s, %s, '')",
            account.id,
            account.email,
            account.subject,
            account.role.value,
        )
        return account

    async def login(self, account: Account | None = None, *, amr: tuple[str, ...] = (PASSWORD,)) -> tuple[UUID, str]:
        """A new session and its first refresh token."""
        tokens = await self.sessions.open(account or self.account(), HOME, amr=amr)
        assert tokens.refresh_token
        return tokens.session_id, tokens.refresh_token

    async def refresh(self, token: str) -> str:
        """The refresh token that one is exchanged for."""
        tokens = await self.sessions.refresh(token, HOME)
        assert tokens.refresh_token
        return tokens.refresh_token

    def pass_time(self, session_id: UUID, passed: timedelta) -> None:
        """Make everything that happened to a session lie so much longer ago."""
        self.do(
            "UPDATE auth.sessions SET auth_time = auth_time - %(by)s, created_at = created_at - %(by)s,"
            " used_at = used_at - %(by)s, idle_until = idle_until - %(by)s, expires_at = expires_at - %(by)s,"
            " revoked_at = revoked_at - %(by)s WHERE session_id = %(id)s",
            by=passed,
            id=session_id,
        )
        self.do(
            "UPDATE auth.refresh_tokens SET issued_at = issued_at - %(by)s, used_at = used_at - %(by)s"
            " WHERE session_id = %(id)s",
            by=passed,
            id=session_id,
        )

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds, as somebody else sees it: only what is committed."""
        return self._past.execute(query.encode(), values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """The only value that a query finds."""
        return self.rows(query, *values)[0][0]

    def do(self, statement: str, *values: object, **named: object) -> None:
        """Change something behind the system's back."""
        self._past.execute(statement.encode(), named or values)

    def events(self, session_id: UUID) -> list[tuple[str, str]]:
        """Type and reason of what happened to a session, the oldest first."""
        return self.rows("SELECT type, reason FROM auth.events WHERE session_id = %s ORDER BY at", session_id)

    def is_revoked(self, session_id: UUID) -> bool:
        return bool(self.one("SELECT revoked_at IS NOT NULL FROM auth.sessions WHERE session_id = %s", session_id))

    def generation(self, session_id: UUID) -> int:
        return int(self.one("SELECT generation FROM auth.sessions WHERE session_id = %s", session_id))

    def unused(self, session_id: UUID) -> int:
        """How many refresh tokens of a session nobody has used yet."""
        query = "SELECT count(*) FROM auth.refresh_tokens WHERE session_id = %s AND used_at IS NULL"
        return int(self.one(query, session_id))
