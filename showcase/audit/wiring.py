"""The audit, built from resources."""

from collections.abc import Sequence

from showcase.audit.api import routes
from showcase.audit.application import Recorder
from showcase.audit.infrastructure import LETTERS, RECORDS, DocumentDeadLetters, DocumentStore
from showcase.audit.worker import recording
from showcase.documents.wiring import apply, repository
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.worker import Work


def build(resources: Resources) -> Slice:
    """What an app serves of it. Raises ValueError when a URL is not set."""
    return Slice(name="audit", routers=(routes(DocumentStore(repository(resources, RECORDS))),))


def work(resources: Resources, tables: Sequence[str]) -> Work:
    """The consumer that records the changes of some tables.

    Args:
        tables: `orders`, or `payment.charges` outside of the schema `public`.

    Raises ValueError when a URL is not set.
    """
    store = DocumentStore(repository(resources, RECORDS))
    prefix = resources.settings.topic_prefix
    topics = [f"{prefix}{table if '.' in table else f'public.{table}'}" for table in tables]
    recorder = Recorder(store, DocumentDeadLetters(repository(resources, LETTERS)))

    async def prepare() -> None:
        await apply(resources, RECORDS, LETTERS)

    return recording(recorder, resources.settings, topics, prepare)
