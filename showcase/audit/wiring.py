"""The audit, built from resources."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from showcase.audit.application.anchoring import Anchoring
from showcase.audit.application.books import Checked, Report
from showcase.audit.application.capture import Capture
from showcase.audit.application.ports import Protect
from showcase.audit.application.protecting import CachedKeys, Protecting, Reveal, Revealing
from showcase.audit.application.proving import prove
from showcase.audit.application.recorder import Recorder, Rules, unprotected
from showcase.audit.application.verifying import Verification
from showcase.audit.application.verifying_anchors import AnchorVerification
from showcase.audit.domain.personal import Personal
from showcase.audit.infrastructure.anchors import AnchorFile, Key, Keys, SqlAnchors
from showcase.audit.infrastructure.connectors import CONTEXT_TABLE, KafkaConnect, PostgresSource, SqlServerSource
from showcase.audit.infrastructure.content import content_of
from showcase.audit.infrastructure.letters import KafkaDeadLetters, KafkaLetterBox, make
from showcase.audit.infrastructure.proof import MongoBooks, opened
from showcase.audit.infrastructure.reading import MongoArchive
from showcase.audit.infrastructure.reads import SqlReads
from showcase.audit.infrastructure.records import RECORDS, SEALS, MongoSeals, MongoStore
from showcase.audit.infrastructure.slots import SqlCaptured
from showcase.audit.infrastructure.subjects import SqlSubjectKeys, SubjectLock, alike
from showcase.audit.infrastructure.topics import KafkaTopics
from showcase.audit.worker.anchoring import anchoring
from showcase.audit.worker.capturing import capturing, gauges
from showcase.audit.worker.recording import group_of, recording
from showcase.documents.wiring import apply, client, mongo
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.slices import Gauge, Slice
from showcase.platform.worker import Work

COLLECTIONS = (RECORDS, SEALS)


def build(resources: Resources, tables: Sequence[str] = ()) -> Slice:
    """What an app serves of it.

    Args:
        tables: whose capture its metrics tell of.

    Raises ValueError when a URL is not set.
    """
    from showcase.audit.api import routes  # not for workers: it loads the web framework

    archive = Revealing(MongoArchive(mongo(resources)), Reveal(subjects(resources), SubjectLock))
    reads, settings = SqlReads(resources.database), resources.settings
    return Slice(
        name="audit",
        routers=(routes(archive, reads),),
        prune=partial(reads.prune, contexts=settings.audit_contexts_kept, reads=settings.audit_reads_kept),
        metrics=partial(capture_gauges, resources, tables),
    )


def work(resources: Resources, tables: Sequence[str], personal: Sequence[Personal] = ()) -> Work:
    """The consumer that records the changes of some tables, and who makes them.

    Args:
        tables: `orders`, `payment.charges` outside of the schema `public`, `pricing.dbo.price_list` in SQL Server.
        personal: what is recorded sealed; the keys are in the shop's database.

    It writes to MongoDB as a user that may insert and read there, and no more; what is to be there it makes as the
    system's own user, if it is told that one's URL. Raises ValueError when a URL is not set.
    """
    settings = resources.settings
    url = _written_by(settings)
    settings.url(url)  # now, rather than when it is first needed
    topics = [f"{settings.topic_prefix}{table if '.' in table else f'public.{table}'}" for table in tables]
    topics.append(replay_topic(settings))
    letters = KafkaDeadLetters(settings.url("kafka_url"), dead_letter_topic(settings))
    rules = Rules(
        tables=frozenset(_in_records(table) for table in tables),
        max_bytes=settings.audit_max_bytes,
        seal_after_s=settings.audit_seal_s,
        seal_records=settings.audit_seal_records,
    )

    protect: Protect = unprotected
    if personal:
        keys = CachedKeys(subjects(resources), lasting_s=settings.audit_key_cache_s)
        protect = Protecting(personal, keys, SubjectLock)

    @asynccontextmanager
    async def recorder() -> AsyncIterator[Recorder]:
        # With a client of its own: one that outlives its server goes on telling the next one a cluster time, signed by
        # a key that this one may not know (KeyNotFound).
        store = client(settings, url)
        try:
            yield Recorder(MongoStore(store), MongoSeals(store), letters, content_of, protect, rules, alike)
        finally:
            await store.close()

    async def prepare() -> None:
        ours = [dead_letter_topic(settings), replay_topic(settings)]
        await make(settings.url("kafka_url"), ours, settings.audit_letters_kept)
        if settings.mongo_url.get_secret_value():
            await apply(resources, *COLLECTIONS)

    return recording(recorder, settings, topics, prepare)


def _written_by(settings: Settings) -> str:
    """The setting by which records are written: that of a user who may insert and read, if there is one."""
    return "audit_mongo_url" if settings.audit_mongo_url.get_secret_value() else "mongo_url"


def _in_records(table: str) -> str:
    """What a captured table is called in records: without its database, and without a schema that is the usual one."""
    return ".".join(table.split(".")[-2:]).removeprefix("public.")


def subjects(resources: Resources) -> SqlSubjectKeys:
    """The keys by which personal data is sealed. Raises ValueError when the database's URL is not set."""
    return SqlSubjectKeys(resources.database)


def anchor(resources: Resources) -> Work:
    """The process that signs where the chains of seals stand. Raises ValueError when a URL or the key is not set."""
    settings = resources.settings
    key = Key(settings.anchor_seed())
    seen = mongo(resources, _written_by(settings))
    file = _anchor_file(settings)
    made = Anchoring(MongoBooks(seen), _anchors(resources), file, key.sign, Keys(key.public).check)
    return anchoring(made.anchor, settings.audit_anchor_s)


async def verify(
    resources: Resources,
    keys: Sequence[bytes] = (),
    *,
    topic: str | None = None,
    grace: timedelta = timedelta(seconds=30),
    tell: Callable[[Checked], None] = lambda _: None,
) -> Report:
    """Compare what is stored with what was sealed and anchored.

    Args:
        keys: public keys whose anchors are ours; if none is given, that of the settings.
        topic: all, if none is named.
        grace: how young a record without a seal may be.
        tell: told of each partition when it is done.

    Raises ValueError for what is not set, Unavailable.
    """
    check = Keys(*(keys or [Key(resources.settings.anchor_seed()).public])).check
    books, report, file = MongoBooks(mongo(resources)), Report(), _anchor_file(resources.settings)
    await Verification(books, report, topic=topic, grace=grace, tell=tell).verify()
    copy = None if file is None else file.lines()
    anchors = AnchorVerification(books, report, _anchors(resources), check, copy=copy, topic=topic, grace=grace)
    await anchors.verify()
    report.sort()
    return report


async def proof(resources: Resources, id_: str) -> dict[str, Any]:
    """The proof of one record. Raises ValueError, NoSuchRecord, NotProvable, Unavailable."""
    public = Key(resources.settings.anchor_seed()).public
    return await prove(id_, MongoBooks(mongo(resources)), _anchors(resources), opened, public)


def _anchors(resources: Resources) -> SqlAnchors:
    """As the role that may add some; as the shop's own, which may read them, where that one is not known."""
    has_role = resources.settings.anchor_postgres_url.get_secret_value()
    return SqlAnchors(resources.database_of("anchor" if has_role else ""))


def _anchor_file(settings: Settings) -> AnchorFile | None:
    return AnchorFile(Path(settings.audit_anchor_file)) if settings.audit_anchor_file else None


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


def letter_box(settings: Settings) -> KafkaLetterBox:
    """The letters, to look at and to replay. Raises Misconfigured when Kafka's URL is not set."""
    return KafkaLetterBox(
        settings.url("kafka_url"),
        letters=dead_letter_topic(settings),
        replayed=replay_topic(settings),
        group=group_of(settings),
        kept=settings.audit_letters_kept,
        timeout_s=settings.kafka_timeout_s,
    )


def dead_letter_topic(settings: Settings) -> str:
    """Where messages go that became no record."""
    return f"{settings.topic_prefix}audit.letters"


def replay_topic(settings: Settings) -> str:
    """Where those of them go that are to be tried once more."""
    return f"{settings.topic_prefix}audit.replayed"
