"""What other slices ask of a store of documents, whatever it is made of.

A use case takes a `Repository` of its documents, and `Transactions` where it changes several at once; it never sees a
driver. Each call raises Unavailable when the store does not answer in time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

from showcase.documents.domain.documents import Change, Document, M_co, Misfit, Outcome, Page, T
from showcase.documents.domain.filters import Filter

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
MAX_LIMIT = 10_000


class Reader(Protocol[M_co]):
    """Reads documents as models."""

    async def get(self, id_: object) -> M_co:
        """One document. Raises NoSuchDocument; BadQuery for what is no id; Misfit."""

    async def find(
        self, where: Filter | None = None, *, sort: Sequence[str] = (), limit: int = 100, after: str | None = None
    ) -> Page[M_co]:
        """Documents, page by page. A page begins after a key, so what comes or goes meanwhile shifts nothing.

        Args:
            sort: names of fields, `-placed_at` descends; the id decides between equals. Without one the order is any,
                and there is no next page.
            limit: how many, 1 to 10,000.
            after: the cursor of the page before, of the same question.

        Raises BadQuery, BadCursor.
        """

    def stream(
        self,
        where: Filter | None = None,
        *,
        sort: Sequence[str] = (),
        batch: int = 1_000,
        misfit: Callable[[Misfit], None] | None = None,
    ) -> AsyncIterator[M_co]:
        """All documents, however many.

        Args:
            batch: how many are in memory at once.
            misfit: told of each that cannot be read; without it, the first one is raised.
        """


class Repository(Reader[T], Protocol[T]):
    """Reads and writes the documents of one collection."""

    def into(self, model: type[M]) -> Reader[M]:
        """The same documents as another model: only its fields are read.

        Raises BadQuery for a field that there is not, and for an `id` that is not read from `_id`.
        """

    async def count(self, where: Filter | None = None) -> int:
        """How many there are."""

    async def exists(self, where: Filter | None = None) -> bool:
        """Whether there is one."""

    async def insert(self, document: T) -> T:
        """Store a new document; it is of version 1 then. Raises AlreadyThere, Unstorable, DocumentTooLarge."""

    async def replace(self, document: T) -> T:
        """Store a document in place of the version that it was made of; that one plus 1 is its version then.

        Fields that the model does not know stay as they are. Raises VersionConflict, NoSuchDocument, AlreadyThere,
        Unstorable, DocumentTooLarge.
        """

    async def upsert(self, document: T) -> T:
        """Store a document, whatever is there: nobody is asked which version he has seen.

        Raises AlreadyThere, Unstorable, DocumentTooLarge.
        """

    async def put_newer(self, document: T) -> bool:
        """Store a document under its own version, unless what is there is as new; whether it was stored.

        For what others count: whatever comes twice, or late, changes nothing. Not within a transaction. Raises
        AlreadyThere, Unstorable, DocumentTooLarge.
        """

    async def patch(self, id_: object, changes: Mapping[str, object], *, version: int | None = None) -> T:
        """Change some fields, and return the document as it is then.

        Args:
            version: only if it is of this one.

        Raises NoSuchDocument, VersionConflict, AlreadyThere; BadQuery for what the model does not have.
        """

    async def delete(self, id_: object, *, version: int | None = None) -> None:
        """Remove a document, if it is of this version. Raises NoSuchDocument, VersionConflict."""

    async def bulk(self, changes: Sequence[Change[T]]) -> Sequence[Outcome]:
        """Make many changes in one call, each on its own and in any order; what came of each.

        Not within a transaction, which is all or nothing. Raises BadQuery for a `Delete` of what is no id; then none of
        them was made.
        """


class Transactions(Protocol):
    """Several changes that are made wholly or not at all."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """All that this task does with repositories of the same store, until the end of the block, is one transaction.

        A commit whose answer is lost is asked for again. The block itself cannot be run again: where another
        transaction was in the way, this is Unavailable. Raises NestedTransaction within another one.
        """

    async def in_transaction(self, work: Callable[[], Awaitable[R]]) -> R:
        """The same for a function, which is called again where another transaction was in the way, until time is up."""


class NestedTransaction(RuntimeError):
    """There is a transaction already. Two that look like two and are one would each undo the other's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed(Generic[T]):
    """A document was changed.

    Attributes:
        document: as it was soon after the change; None if it was deleted by then, or does not fit the model.
        misfit: why not.
    """

    kind: Literal["insert", "update", "replace", "delete"]
    id: object
    document: T | None
    misfit: Misfit | None = None


Following = AbstractAsyncContextManager[AsyncIterator[Changed[T]]]
"""Open for as long as its block lasts."""

__all__ = [
    "Changed",
    "Document",
    "Following",
    "NestedTransaction",
    "Reader",
    "Repository",
    "Transactions",
]
