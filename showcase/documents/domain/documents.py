"""A document, the collection it is kept in, and what can go wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from showcase.kernel.errors import Conflict, Invalid, NotFound, TooLarge

MAX_BYTES = 16 * 1024 * 1024
"""What MongoDB takes as one document."""


def _to_the_millisecond(at: datetime) -> datetime:
    if at.tzinfo is UTC and at.microsecond % 1_000 == 0:
        return at  # as it comes from MongoDB
    try:
        return at.astimezone(UTC).replace(microsecond=at.microsecond // 1_000 * 1_000)
    except OverflowError as error:
        raise ValueError("in UTC it is not within the years 1 to 9999") from error


Moment = Annotated[AwareDatetime, AfterValidator(_to_the_millisecond)]
"""A time as MongoDB keeps it: in UTC, to the millisecond, so that what is read is what was written."""


class Document(BaseModel):
    """A model that is kept as one document. Subclasses declare their `id`, which is MongoDB's `_id`.

    Attributes:
        version: one more with each change, so that nobody overwrites what he has not seen; 0 before it is stored.
    """

    model_config = ConfigDict(
        frozen=True,
        populate_by_name=True,
        alias_generator=lambda name: "_id" if name == "id" else name,
    )

    id: Any
    version: Annotated[int, Field(ge=0)] = 0


T = TypeVar("T", bound=Document)
M_co = TypeVar("M_co", bound=BaseModel, covariant=True)


# -- what can go wrong


class NoSuchDocument(NotFound):
    """There is no document with this id."""


class VersionConflict(Conflict):
    """Somebody else has changed the document since it was read.

    Attributes:
        expected: the version that the change builds on.
        found: the version that is stored.
    """

    def __init__(self, what: str, expected: int, found: int) -> None:
        super().__init__(
            f"{what} is of version {found} by now, not {expected}: read it again", expected=expected, found=found
        )
        self.expected = expected
        self.found = found


class AlreadyThere(Conflict):
    """Another document has the same value where each has to have its own.

    Attributes:
        fields: the names of the index's fields; `_id` alone for the id.
    """

    def __init__(self, what: str, fields: Sequence[str]) -> None:
        super().__init__(f"{what}: another document has the same {', '.join(fields)}")
        self.fields = tuple(fields)


class Unstorable(Invalid):
    """There is no way to write this as BSON, or the collection's validator refuses it."""


class DocumentTooLarge(TooLarge):
    """The document is larger than MongoDB takes."""


class BadQuery(Invalid):
    """This cannot be asked: no such field, or no value that it could have."""


class BadCursor(Invalid):
    """The cursor is none that a page of this query ended with."""


class HistoryLost(Conflict):
    """The changes since this reader stopped are no longer there: whatever it has derived is to be built anew."""


class Misfit(Exception):
    """A stored document that does not fit its model: somebody else's writing, or an older one's.

    Not an error of the domain: whoever asked for it did nothing wrong, and an operator has to look.
    """

    def __init__(self, collection: str, id_: object, why: str) -> None:
        super().__init__(f"{collection} {id_!r} does not fit: {why}")
        self.collection = collection
        self.id = id_
        self.why = why


# -- what comes of a question


@dataclass(frozen=True, slots=True)
class Page(Generic[M_co]):
    """Some of many.

    Attributes:
        next: the cursor of the page after this one; None on the last, and for a question without an order.
        misfits: documents of this page that could not be read: the others are there all the same.
    """

    items: Sequence[M_co]
    next: str | None = None
    misfits: Sequence[Misfit] = ()

    def __iter__(self) -> Iterator[M_co]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


# -- many changes in one call


@dataclass(frozen=True, slots=True)
class Insert(Generic[T]):
    """Store a new document."""

    document: T


@dataclass(frozen=True, slots=True)
class Replace(Generic[T]):
    """Store a document in place of the version that it was made of."""

    document: T


@dataclass(frozen=True, slots=True)
class Upsert(Generic[T]):
    """Store a document, whatever is there."""

    document: T


@dataclass(frozen=True, slots=True)
class PutNewer(Generic[T]):
    """Store a document under its own version, unless what is there is as new."""

    document: T


@dataclass(frozen=True, slots=True)
class Restore(Generic[T]):
    """Store a document under its own version, unless what is there is newer: what is as new is written again."""

    document: T


@dataclass(frozen=True, slots=True)
class Delete:
    """See to it that there is no document with this id."""

    id: object


Change = Insert[T] | Replace[T] | Upsert[T] | PutNewer[T] | Restore[T] | Delete
Outcome = None | AlreadyThere | VersionConflict | NoSuchDocument | Unstorable | DocumentTooLarge
"""What came of one change: None if it is made, or why not. `PutNewer`, `Restore` that come late: `VersionConflict`."""


# -- a collection


def _has_other_times(schema: object) -> bool:
    """Whether there is a time in a model's schema that would come back as another one."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "function-after" and schema["function"]["function"] is _to_the_millisecond:
            return False
        return schema.get("type") == "datetime" or any(map(_has_other_times, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_has_other_times, schema))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """How documents are found fast.

    Attributes:
        keys: names of fields as MongoDB has them; those that begin with `-` descend.
        unique: no two documents have the same values.
        only: a filter of MongoDB; other documents are not in the index.
        expires_after: documents are removed so long after the time that is in the only key.
    """

    keys: tuple[str, ...]
    unique: bool = False
    only: Mapping[str, object] | None = None
    expires_after: timedelta | None = None

    @property
    def name(self) -> str:
        return "_".join(f"{key.removeprefix('-')}_{-1 if key.startswith('-') else 1}" for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection(Generic[T]):
    """Documents of one model: declared beside it, as a constant.

    Attributes:
        schema: `$jsonSchema`, by which MongoDB refuses what others than us write.

    Raises TypeError for a model with times that MongoDB does not keep as they are, or with other names in MongoDB.
    """

    name: str
    model: type[T]
    indexes: tuple[Index, ...] = ()
    schema: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        for name, field in self.model.model_fields.items():
            if field.serialization_alias not in (None, "_id" if name == "id" else name):
                raise TypeError(f"{self.model.__name__}.{name} has an alias: fields are asked for as they are stored")
        if len({index.name for index in self.indexes}) < len(self.indexes):
            raise TypeError(f"{self.name} has two indexes on the same keys: MongoDB would take one for the other")
        if _has_other_times(self.model.__pydantic_core_schema__):
            raise TypeError(f"{self.model.__name__} has a datetime: declare it as Moment, which MongoDB can keep")


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of declared collections: names, `orders.household_id_1`; nothing where it was so already.

    Attributes:
        left_over: indexes that nobody declares any more. They are left alone: somebody may need them.
    """

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
