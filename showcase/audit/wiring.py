"""The audit, built from resources."""

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from showcase.audit.api import routes
from showcase.audit.application.capture import Capture
from showcase.audit.application.recorder import Recorder, Rules
from showcase.audit.infrastructure.connectors import CONTEXT_TABLE, KafkaConnect, PostgresSource, SqlServerSource
from showcase.audit.infrastructure.content import content_of
from showcase.audit.infrastructure.letters import KafkaDeadLetters
from showcase.audit.infrastructure.reading import DocumentArchive
from showcase.audit.infrastructure.records import RECORDS, SEALS, MongoSeals, MongoStore
from showcase.audit.infrastructure.slots import SqlCaptured
from showcase.audit.infrastructure.topics import KafkaTopics
from showcase.audit.worker.capturing import capturing, gauges
from showcase.audit.worker.recording import recording
from showcase.documents.wiring import apply, mongo, repository
from showcase.platform.kafka import make_topics
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.slices import Gauge, Slice
from showcase.platform.worker import Work

COLLECTIONS = (RECORDS, SEALS)


def build(resources: Resources) -> Slice:
    """What an app serves of it. Raises ValueError when a URL is not set."""
    return Slice(name="audit", routers=(routes(DocumentArchive(repository(resources, RECORDS))),))


def work(resources: Resources, tables: Sequence[str]) -> Work:
    """The consumer that records the changes of some tables, and who makes them.

    Args:
        tables: `orders`, or `payment.charges` outside of the schema `public`.

    It writes to MongoDB as a user that may insert and read there, and no more; what is to be there it makes as the
    system's own user, if it is told that one's URL. Raises ValueError when a URL is not set.
    """
    settings = resources.settings
    store = mongo(resources, "audit_mongo_url" if settings.audit_mongo_url.get_secret_value() else "mongo_url")
    topics = [f"{settings.topic_prefix}{table if '.' in table else f'public.{table}'}" for table in tables]
    letters = KafkaDeadLetters(settings.url("kafka_url"), dead_letter_topic(settings))
    rules = Rules(
        tables=frozenset(table.removeprefix("public.") for table in tables),
        max_bytes=settings.audit_max_bytes,
        seal_after_s=settings.audit_seal_s,
        seal_records=settings.audit_seal_records,
    )

    def recorder() -> Recorder:
        return Recorder(MongoStore(store), MongoSeals(store), letters, content_of, rules=rules)

    async def prepare() -> None:
        await make_topics(settings.url("kafka_url"), [dead_letter_topic(settings)], kept=settings.audit_letters_kept)
        if settings.mongo_url.get_secret_value():
            await apply(resources, *COLLECTIONS)

    return recording(recorder, settings, topics, prepare)


def capture(resources: Resources, tables: Sequence[str], source: str = "postgres") -> Capture:
    """What captures the changes of some tables of the shop's database, or of the suppliers' prices in SQL Server.

    Args:
        source: `postgres` or `sqlserver`.

    Raises Misconfigured for settings that cannot be, and when a URL is not set.
    """
    settings = resources.settings
    name = settings.topic_prefix.removesuffix(".")
    kept, partitions, epoch = settings.audit_retention, settings.audit_partitions, settings.audit_epoch
    database = unquote(urlsplit(settings.url("postgres_url")).path[1:])
    return Capture(
        source=PostgresSource(
            name=name,
            database=database,
            tables=(CONTEXT_TABLE, *tables),
            audited=tables,
            epoch=epoch,
            partitions=partitions,
            kept=kept,
        )
        if source == "postgres"
        else SqlServerSource(name=name, epoch=epoch, partitions=partitions, kept=kept),
        connectors=KafkaConnect(settings.url("connect_url"), timeout_s=settings.connect_timeout_s),
        topics=KafkaTopics(settings.url("kafka_url"), timeout_s=settings.connect_timeout_s),
        database=SqlCaptured(resources.database),
        within_s=settings.audit_connector_s,
    )


def supervising(resources: Resources, tables: Sequence[str]) -> Work:
    """Brings connectors back that have failed."""
    captures = [capture(resources, tables, source) for source in resources.settings.audit_sources]
    return capturing(captures, look_s=resources.settings.audit_look_s)


async def capture_gauges(resources: Resources, tables: Sequence[str]) -> list[Gauge]:
    """How the capture is doing; nothing where no Kafka Connect is known. Raises Unavailable."""
    if not resources.settings.connect_url.get_secret_value():
        return []
    return await gauges([capture(resources, tables, source) for source in resources.settings.audit_sources])


def dead_letter_topic(settings: Settings) -> str:
    """Where messages go that became no record."""
    return f"{settings.topic_prefix}audit.letters"
