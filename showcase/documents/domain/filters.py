"""Which documents: expressions whose names and values are checked against the model before anything is asked.

A value is a value: however it looks, it is compared with what is stored, and never read as an operator. So a filter may
be made of a request's body: `{"status": {"$ne": null}}` is refused, since no status is an object.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError

from showcase.documents.domain.documents import BadQuery

MAX_VALUES = 10_000


class Operator(StrEnum):
    """How a field is compared; each as MongoDB calls it."""

    EQ = "$eq"
    NE = "$ne"
    LT = "$lt"
    LTE = "$lte"
    GT = "$gt"
    GTE = "$gte"
    IN = "$in"
    NIN = "$nin"


@dataclass(frozen=True, slots=True)
class Compare:
    """A field and a value. A path that leads through a list means any of its elements.

    Attributes:
        path: `status`, `address.city`, `lines.product_id`.
        in_list: the field is a list, and the value is compared with its elements.
    """

    path: str
    operator: Operator
    value: object
    in_list: bool = False


@dataclass(frozen=True, slots=True)
class Every:
    """All of them hold."""

    parts: tuple["Where", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One of them holds, or more."""

    parts: tuple["Where", ...]


Where = Compare | Every | Some
Filter = Where | Mapping[str, object]
"""A plain mapping says which values fields have; its names are names of fields, and no paths."""


def eq(path: str, value: object) -> Compare:
    """The field has this value; None: or is not there."""
    return Compare(path, Operator.EQ, value)


def ne(path: str, value: object) -> Compare:
    """The field has another value, or none."""
    return Compare(path, Operator.NE, value)


def lt(path: str, value: object) -> Compare:
    """The field is less."""
    return Compare(path, Operator.LT, value)


def lte(path: str, value: object) -> Compare:
    """The field is less, or equal."""
    return Compare(path, Operator.LTE, value)


def gt(path: str, value: object) -> Compare:
    """The field is greater."""
    return Compare(path, Operator.GT, value)


def gte(path: str, value: object) -> Compare:
    """The field is greater, or equal."""
    return Compare(path, Operator.GTE, value)


def one_of(path: str, values: Sequence[object]) -> Compare:
    """The field has one of these values."""
    return Compare(path, Operator.IN, values)


def none_of(path: str, values: Sequence[object]) -> Compare:
    """The field has none of these values."""
    return Compare(path, Operator.NIN, values)


def has(path: str, value: object) -> Compare:
    """The field is a list, and this is in it."""
    return Compare(path, Operator.EQ, value, in_list=True)


def all_of(*parts: Where) -> Every:
    """All of them hold; of none, always."""
    return Every(parts)


def any_of(*parts: Where) -> Some:
    """One of them holds; of none, never."""
    return Some(parts)


class Fields:
    """The fields of a model, by their paths."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._adapter = lru_cache(256)(self._made)
        self._uuids = {
            name for name, field in model.model_fields.items() if field.annotation is UUID and not field.metadata
        }

    def check(self, where: Filter | None) -> Where:
        """The same, with each value as it is stored. Raises BadQuery."""
        if where is None:
            return Every(())
        if isinstance(where, Mapping):
            return Every(tuple(eq(self.name(name), self.value(name, value)) for name, value in where.items()))
        if isinstance(where, Compare):
            many = where.operator in (Operator.IN, Operator.NIN)
            return Compare(where.path, where.operator, self._values(where) if many else self._one(where))
        return type(where)(tuple(self.check(part) for part in where.parts))

    def name(self, name: object) -> str:
        """The name of a field, no path. Raises BadQuery."""
        if name not in self._model.model_fields:
            near = difflib.get_close_matches(str(name)[:100], self._model.model_fields, 1)
            raise BadQuery(f"{self._model.__name__} has no field {str(name)[:100]!r}{f': {near[0]}?' if near else ''}")
        return str(name)

    def sortable(self, name: object) -> str:
        """The name of a field that has one place in an order. Raises BadQuery."""
        known = self.name(name)
        if list(_elements(self._model.model_fields[known].annotation)):
            raise BadQuery(f"{known} is a list, and has no one place in an order")
        return known

    def read_by(self, model: type[BaseModel]) -> list[str]:
        """What another model reads of the same documents, by MongoDB's names. Raises BadQuery."""
        if "id" in model.model_fields and model.model_fields["id"].validation_alias != "_id":
            raise BadQuery(f"{model.__name__} does not read its id from `_id`: give it that for its alias")
        return ["_id" if name == "id" else self.name(name) for name in model.model_fields]

    def value(self, path: str, given: object) -> Any:
        """A value as a field would have it, ready to be stored. Raises BadQuery."""
        if type(given) is UUID and path in self._uuids:
            return given  # most ids: there is nothing to check
        return self._valid(path, given, in_list=False)

    def _one(self, where: Compare) -> object:
        return self._valid(where.path, where.value, in_list=where.in_list)

    def _values(self, where: Compare) -> list[object]:
        if isinstance(where.value, str | bytes | Mapping) or not isinstance(where.value, Sequence | AbstractSet):
            raise BadQuery(f"{where.path}: a list of values is needed")
        if len(where.value) > MAX_VALUES:
            raise BadQuery(f"{where.path}: up to {MAX_VALUES:,} values, not {len(where.value):,}")
        return [self._valid(where.path, value, in_list=False) for value in where.value]

    def _valid(self, path: str, given: object, *, in_list: bool) -> Any:
        adapter = self._adapter(path, in_list)
        try:
            return adapter.serializer.to_python(adapter.validator.validate_python(given), by_alias=True)
        except ValidationError as error:
            raise BadQuery(f"{path}: {error.errors(include_url=False, include_input=False)[0]['msg']}") from error

    def _made(self, path: str, in_list: bool) -> TypeAdapter[Any]:
        names = path.split(".")
        self.name(names[0])
        types: list[Any] = [self._model]
        for name in names:
            types = [found for type_ in types for arm in _arms(type_) for found in _field(arm, name)]
            if not types:
                raise BadQuery(f"{self._model.__name__} has no field {path[:100]!r}")
        if in_list:
            types = [element for type_ in types for element in _elements(type_)]
            if not types:
                raise BadQuery(f"{path} is no list")
        return TypeAdapter(_any_of(types))


def _any_of(types: Sequence[Any]) -> Any:
    return Union[tuple(types)]  # noqa: UP007 - there may be any number of them


def _arms(type_: Any) -> Iterator[type]:
    """The types that a value of this type may be, or that the elements of a list of this type may be."""
    origin = get_origin(type_)
    if origin is None:
        yield from [type_] if isinstance(type_, type) else ()
    elif not (isinstance(origin, type) and issubclass(origin, Mapping)):
        for argument in get_args(type_)[: 1 if origin is Annotated else None]:
            yield from _arms(argument)


def _field(arm: type, name: str) -> Iterator[Any]:
    if issubclass(arm, BaseModel) and name in arm.model_fields:
        info = arm.model_fields[name]
        yield Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    elif is_dataclass(arm) and name in (hints := get_type_hints(arm, include_extras=True)):
        yield hints[name]


def _elements(type_: Any) -> Iterator[Any]:
    """What is in a list of this type; nothing if it is none."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        yield from _elements(arguments[0])
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _elements(argument)
    elif isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        yield from arguments[:1]
