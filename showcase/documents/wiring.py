"""Documents, built from resources."""

from collections.abc import Sequence
from typing import Any

from showcase.documents.application import Following, Repository
from showcase.documents.domain.documents import Applied, Collection, T
from showcase.documents.infrastructure import changes, schema
from showcase.documents.infrastructure.mongo import Mongo, Options
from showcase.documents.infrastructure.repository import MongoRepository
from showcase.platform.resources import Resources
from showcase.platform.settings import Misconfigured, Settings
from showcase.platform.slices import Gauge


def mongo(resources: Resources, url: str = "mongo_url") -> Mongo:
    """A client of this process, connected to when it is first used.

    Args:
        url: the setting by which it logs in.

    Raises Misconfigured when its URL is not set.
    """
    return resources.shared(url.removesuffix("_url"), lambda: client(resources.settings, url))


def client(settings: Settings, url: str = "mongo_url") -> Mongo:
    """The same, for somebody who closes it himself."""
    options = Options(
        timeout_s=settings.mongo_timeout_s,
        select_s=settings.mongo_timeout_s,
        queue_s=settings.mongo_queue_s,
        connections=settings.mongo_connections,
        kept_connections=settings.mongo_kept_connections,
        compressors=settings.mongo_compressors,
        slow_s=settings.mongo_slow_s,
        secrets=tuple(secret.partition(":")[2].encode() for secret in settings.secrets.get_secret_value().split(",")),
    )
    try:
        return Mongo(settings.url(url), options)
    except ValueError as error:
        raise Misconfigured(f"SHOWCASE_{url.upper()}: {error}") from None


def repository(resources: Resources, collection: Collection[T]) -> Repository[T]:
    """The documents of a collection. Raises Misconfigured when the URL is not set."""
    return MongoRepository(mongo(resources), collection)


async def apply(resources: Resources, *collections: Collection[Any]) -> Applied:
    """Bring the database to what is declared; safe to repeat, and in several processes at once. Raises Unavailable."""
    return await schema.apply(mongo(resources), *collections)


async def drop(resources: Resources, collection: Collection[Any]) -> None:
    """Remove a collection with all that is in it. Raises Unavailable."""
    ours = mongo(resources)
    with ours.calling(f"removal of {collection.name}"):
        await ours.collection(collection.name).drop()


def following(resources: Resources, collection: Collection[T], name: str) -> Following[T]:
    """The changes of a collection, from where the reader of this name stopped. Raises HistoryLost, Unavailable."""
    return changes.following(mongo(resources), collection, name)


async def metrics(resources: Resources) -> Sequence[Gauge]:
    """How the client is doing: commands, connections, servers."""
    return mongo(resources).watch.gauges()
