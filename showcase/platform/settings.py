"""Everything that can be set from outside, read once from the environment (`SHOWCASE_…`)."""

from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Misconfigured(ValueError):
    """What this process was started with cannot work."""


WORKSHOP_KEY = "only-for-the-workshop-where-nothing-is-worth-stealing"


class Settings(BaseSettings):
    """Where the servers are and how the system behaves.

    Every URL holds a password, so all of them are secrets: they show as `**********`.

    Raises pydantic.ValidationError (a ValueError) for values that cannot be, and for default secrets outside of
    the workshop.
    """

    model_config = SettingsConfigDict(env_prefix="SHOWCASE_", frozen=True, extra="ignore")

    environment: Literal["workshop", "production"] = "production"
    """The secrets below have defaults; only in the workshop are those accepted."""

    # -- servers; a process needs those that it uses
    postgres_url: SecretStr = SecretStr("")
    payment_postgres_url: SecretStr = SecretStr("")
    stock_postgres_url: SecretStr = SecretStr("")
    notice_postgres_url: SecretStr = SecretStr("")
    mongo_url: SecretStr = SecretStr("")
    redis_cache_url: SecretStr = SecretStr("")
    redis_state_url: SecretStr = SecretStr("")
    rabbitmq_url: SecretStr = SecretStr("")
    kafka_url: SecretStr = SecretStr("")
    mail_url: SecretStr = SecretStr("")
    redis_prefix: str = "showcase:"
    topic_prefix: str = "showcase."
    mail_domain: str = "showcase.test"

    # -- how long a caller waits, at the most
    database_timeout_s: float = Field(5.0, gt=0, le=60)
    database_connections: int = Field(10, ge=1, le=100)
    cache_timeout_s: float = Field(0.1, gt=0, le=5)
    redis_timeout_s: float = Field(1.0, gt=0, le=30)
    broker_timeout_s: float = Field(5.0, gt=0, le=60)
    mongo_timeout_s: float = Field(5.0, gt=0, le=60)
    kafka_session_timeout_s: float = Field(6.0, ge=1, le=60)
    drain_s: float = Field(10.0, gt=0, le=120)
    """What is in flight when a process is told to stop has so long to finish."""

    # -- HTTP
    max_body_bytes: int = Field(1_000_000, ge=1_000)
    max_sockets: int = Field(2_000, ge=1)
    idempotency_lifetime: timedelta = timedelta(hours=24)

    # -- tokens
    token_key: SecretStr = SecretStr(WORKSHOP_KEY)
    issuer: str = "https://shop.example"
    audience: str = "https://shop.example/api"

    # -- messaging
    relay_batch: int = Field(200, ge=1, le=10_000)
    relay_poll_s: float = Field(1.0, gt=0, le=5)
    """How long an event waits if the notification that wakes the relay is lost."""
    prefetch: int = Field(100, ge=1, le=1_000)
    outbox_kept: timedelta = timedelta(hours=24)
    inbox_kept: timedelta = timedelta(days=7)

    # -- the rest
    payment_latency: timedelta = timedelta(milliseconds=20)
    """What the payment provider takes for each charge. There is none: this is simulated."""
    payment_limit_cents: int = Field(10_000_00, ge=0)
    """Baskets above it are declined."""
    product_cached: timedelta = timedelta(minutes=5)
    stream_length: int = Field(10_000, ge=100)
    """How many events the stream behind the WebSockets keeps."""

    @model_validator(mode="after")
    def _refuse_default_secrets(self) -> Self:
        key = self.token_key.get_secret_value()
        if self.environment != "workshop" and key == WORKSHOP_KEY:
            raise ValueError("SHOWCASE_TOKEN_KEY is the default one: set it, or SHOWCASE_ENVIRONMENT=workshop")
        if len(key.encode()) < 32:
            raise ValueError("SHOWCASE_TOKEN_KEY needs 32 bytes or more (RFC 7518 §3.2)")
        return self

    def url(self, name: str) -> str:
        """The URL in one of the settings above. Raises ValueError, naming the variable, when there is none."""
        secret: SecretStr = getattr(self, name)
        value = secret.get_secret_value()
        if not value:
            raise Misconfigured(f"SHOWCASE_{name.upper()} is not set")
        if not _is_url(value):  # not shown: it may hold a password all the same
            raise Misconfigured(f"SHOWCASE_{name.upper()} is no URL: scheme://user:password@host:port/…")
        return value


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.scheme and parts.netloc) and ("," in parts.netloc or parts.port != 0)  # "," of several hosts
    except ValueError:
        return False
