"""Everything that can be set from outside, read once from the environment (`SHOWCASE_…`)."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Misconfigured(ValueError):
    """What this process was started with cannot work."""


Seconds = Annotated[float, Field(gt=0, le=3_600)]


def _words(given: object) -> object:
    """Values that a space stands between, as the environment has them."""
    return tuple(given.split()) if isinstance(given, str) else given


WORKSHOP_SECRETS = "w1:only-for-the-workshop-where-nothing-is-worth-stealing"

WORKSHOP_ANCHOR_KEY = "77" * 32


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
    anchor_postgres_url: SecretStr = SecretStr("")
    mongo_url: SecretStr = SecretStr("")
    redis_cache_url: SecretStr = SecretStr("")
    redis_state_url: SecretStr = SecretStr("")
    rabbitmq_url: SecretStr = SecretStr("")
    rabbitmq_api_url: SecretStr = SecretStr("")
    """Of its management plugin. Nothing but rates of queues needs it."""
    kafka_url: SecretStr = SecretStr("")
    connect_url: SecretStr = SecretStr("")
    """Of Kafka Connect's REST API."""
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
    kafka_timeout_s: float = Field(10.0, gt=0, le=60)
    """For those who ask Kafka something: it may take a while to find itself again."""
    kafka_session_timeout_s: float = Field(6.0, ge=1, le=60)
    connect_timeout_s: float = Field(10.0, gt=0, le=60)
    drain_s: float = Field(10.0, gt=0, le=120)
    """What is in flight when a process is told to stop has so long to finish."""

    # -- MongoDB; TLS and the replica set are in its URL
    mongo_connections: int = Field(50, ge=1, le=1_000)
    mongo_kept_connections: int = Field(0, ge=0, le=1_000)
    mongo_queue_s: float = Field(2.0, gt=0, le=60)
    """How long a call waits for a free connection."""
    mongo_compressors: Annotated[tuple[Literal["zlib", "snappy", "zstd"], ...], NoDecode, BeforeValidator(_words)] = ()
    """By preference, `zstd zlib`; all but `zlib` need a package of their own."""
    mongo_slow_s: float = Field(0.5, gt=0, le=60)
    """A command that takes longer is logged."""

    # -- HTTP
    trusted_proxies: str = ""
    """Whose `X-Forwarded-For` is believed, `10.0.0.1,10.0.0.2`: nobody's, if there is no proxy."""
    max_body_bytes: int = Field(1_000_000, ge=1_000)
    idempotency_lifetime: timedelta = timedelta(hours=24)

    # -- authentication
    secrets: SecretStr = SecretStr(WORKSHOP_SECRETS)
    """`id:secret,id:secret`: the first seals and signs, the others still open what they have sealed."""
    issuer: str = "https://shop.example"
    audience: str = "https://shop.example/api"
    token_algorithm: Literal["ES256", "EdDSA"] = "ES256"  # noqa: S105
    access_lifetime: timedelta = timedelta(minutes=5)
    refresh_idle: timedelta = timedelta(days=14)
    """A session that is not used for so long ends."""
    session_lifetime: timedelta = timedelta(days=90)
    refresh_policy: Literal["strict", "grace", "same-successor"] = "same-successor"
    refresh_leeway: timedelta = timedelta(seconds=10)
    """How long after a rotation its answer may be asked for again, since it was lost."""
    revocation: Literal["pushed", "looked-up", "none"] = "pushed"
    """How a check learns of a revocation: told beforehand, asks Redis each time, or not before the token expires."""
    login_age: timedelta = timedelta(minutes=10)
    step_up_age: timedelta = timedelta(minutes=5)
    """How old a sign-in, and a second factor, may be for what needs a fresh one."""
    keys_reload_s: float = Field(10.0, gt=0, le=300)
    challenge_lifetime: timedelta = timedelta(minutes=10)
    mail_resend: timedelta = timedelta(seconds=30)
    """Between two mails for the same purpose to one address."""
    login_limits: str = "5 per minute; 20 per 15 minutes; 100 per day"
    """For wrong passwords and codes of one account."""
    address_limits: str = "60 per minute; 600 per hour"
    """For whatever one address tries without having signed in."""
    hashing_at_once: int = Field(2, ge=1, le=64)
    hashing_waiting: int = Field(20, ge=0, le=1_000)
    """How many may wait for their password to be hashed; whoever comes then is sent away with 503."""
    auth_events_kept: timedelta = timedelta(days=90)
    ended_sessions_kept: timedelta = timedelta(days=7)
    trusted_origins: str = ""
    """Whose pages may use cookies, besides the app's own: `https://shop.example,https://…`."""

    # -- messaging
    relay_batch: int = Field(1_000, ge=1, le=10_000)
    """How many messages of one outbox are on their way at once, at the most."""
    relay_lanes: int = Field(2, ge=1, le=16)
    """How many batches of one outbox one relay has on their way: one reads the database while another publishes. Each
    takes a database connection."""
    relay_poll_s: float = Field(1.0, gt=0, le=5)
    """How long an event waits if the notification that wakes the relay is lost."""
    prefetch: int = Field(200, ge=1, le=1_000)
    consume_batch: int = Field(50, ge=1, le=1_000)
    """How many messages are handled in one transaction, at the most."""
    retry_delays_s: Annotated[tuple[Seconds, ...], NoDecode, BeforeValidator(_words)] = (1.0, 5.0, 30.0)
    """The retry ladder, `1 5 30`: how long a message waits before each further try; then it is parked."""
    max_message_bytes: int = Field(16_777_216, ge=1_000)
    """The broker's own limit (`max_message_size`)."""
    outbox_kept: timedelta = timedelta(hours=24)
    inbox_kept: timedelta = timedelta(days=7)
    """At least as long as anybody may replay a message."""
    parked_kept: timedelta = timedelta(days=30)
    """After they were replayed or discarded."""

    # -- caching
    cache_levels: Literal["none", "far", "both"] = "both"
    """Whether a product is read from the database each time, through Redis, or also through this process's memory."""
    cache_near_entries: int = Field(10_000, ge=0, le=10_000_000)
    cache_near_bytes: int = Field(64_000_000, ge=0)
    """What one process holds in its memory, about."""
    cache_invalidate_on_write: bool = True
    """Whether a product that was changed over HTTP is removed before the change is answered."""
    product_cached: timedelta = timedelta(minutes=5)
    product_jitter: timedelta = timedelta(0)
    product_near: timedelta = timedelta(seconds=30)
    product_absent: timedelta = timedelta(seconds=5)
    product_early: float = Field(1.0, ge=0, le=100)
    product_stale: timedelta = timedelta(0)
    product_fail_safe: timedelta = timedelta(minutes=30)
    product_soft: timedelta = timedelta(milliseconds=500)
    product_hard: timedelta = timedelta(seconds=5)
    """See `caching.domain.Options`. `product_soft` of 0: a reader waits as long as the source takes."""

    # -- audit
    audit_mongo_url: SecretStr = SecretStr("")
    """By which records are written: a user that may insert and read, and no more; `mongo_url` if there is none."""
    audit_sources: Annotated[tuple[Literal["postgres", "sqlserver"], ...], NoDecode, BeforeValidator(_words)] = (
        "postgres",
    )
    """Whose connectors are looked after, `postgres sqlserver`."""
    audit_epoch: int = Field(0, ge=0, le=9_999)
    """Raise it when a source was restored from a backup: its log begins again, and its places would come twice."""
    audit_partitions: int = Field(3, ge=1, le=1_000)
    """Of each audited table's topic. They grow only."""
    audit_retention: timedelta = timedelta(days=7)
    """How long a topic keeps a change: whoever records them may be away for no longer."""
    audit_connector_s: float = Field(60.0, gt=0, le=600)
    """How long a connector may take until it runs."""
    audit_look_s: float = Field(3.0, gt=0, le=60)
    """How often somebody looks whether the connectors run."""
    audit_max_bytes: int = Field(4_000_000, ge=1_000, le=15_000_000)
    """A larger message is no record, but a dead letter."""
    audit_seal_s: float = Field(1.0, gt=0, le=60)
    audit_seal_records: int = Field(2_000, ge=1, le=100_000)
    """A record waits so long for its seal, or for so many others of its partition."""
    audit_letters_kept: timedelta = timedelta(days=30)
    audit_contexts_kept: timedelta = timedelta(days=7)
    audit_reads_kept: timedelta = timedelta(days=90)
    """Rows in PostgreSQL; their records stay."""
    audit_anchor_s: float = Field(10.0, gt=0, le=3_600)
    """How often the ends of all chains of seals are signed: what was cut off since then is not seen."""
    audit_anchor_key: SecretStr = SecretStr(WORKSHOP_ANCHOR_KEY)
    """The seed of an Ed25519 key, 64 hexadecimal digits. Only whoever anchors, or verifies by it, needs one."""
    audit_anchor_file: str = ""
    """A second place for anchors, best on a disk that others than the database's masters look after."""
    audit_key_cache_s: float = Field(60.0, ge=0, le=3_600)
    """How long a consumer may seal with a key that was destroyed, at the most."""

    # -- real time
    max_sockets: int = Field(2_000, ge=1)
    """Of one process."""
    max_sockets_of_household: int = Field(20, ge=1)
    """With one process."""
    ticket_lifetime: timedelta = timedelta(seconds=30)
    socket_ping_s: float = Field(20.0, gt=0, le=300)
    """A connection that answers no ping for so long is closed."""
    stream_length: int = Field(10_000, ge=100)
    """How many events the stream keeps, about: who was away for longer is told to look anew."""

    # -- the rest
    payment_latency: timedelta = timedelta(milliseconds=20)
    """What the payment provider takes for each charge. There is none: this is simulated."""
    payment_limit_cents: int = Field(10_000_00, ge=0)
    """Baskets above it are declined."""
    order_within: timedelta = timedelta(minutes=10)
    """An order that is not reserved by then is cancelled, and its payment taken back."""
    shelf_pieces: int = Field(1_000_000, ge=0)
    """What a shelf holds that nobody has taken from yet."""

    @model_validator(mode="after")
    def _refuse_default_secrets(self) -> Self:
        given = self.secrets.get_secret_value()
        if self.environment != "workshop" and WORKSHOP_SECRETS in given:
            raise ValueError("SHOWCASE_SECRETS is the default one: set it, or SHOWCASE_ENVIRONMENT=workshop")
        named = [one.partition(":")[::2] for one in given.split(",")]
        if not all(re.fullmatch("[a-z0-9]{1,16}", name) and len(secret.encode()) >= 32 for name, secret in named):
            raise ValueError("SHOWCASE_SECRETS is `id:secret,id:secret`, each secret of 32 bytes or more")
        if len({name for name, _ in named}) < len(named):
            raise ValueError("SHOWCASE_SECRETS has two secrets with one id")
        return self

    def origins(self) -> frozenset[str]:
        """The `trusted_origins`, one by one."""
        return frozenset(filter(None, self.trusted_origins.split(",")))

    def anchor_seed(self) -> bytes:
        """The seed of the key that signs anchors. Raises Misconfigured for the default one outside of the workshop."""
        given = self.audit_anchor_key.get_secret_value()
        if self.environment != "workshop" and given == WORKSHOP_ANCHOR_KEY:
            raise Misconfigured("SHOWCASE_AUDIT_ANCHOR_KEY is the default: set it, or SHOWCASE_ENVIRONMENT=workshop")
        if not re.fullmatch("[0-9a-fA-F]{64}", given):
            raise Misconfigured("SHOWCASE_AUDIT_ANCHOR_KEY is 64 hexadecimal digits")
        return bytes.fromhex(given)

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
