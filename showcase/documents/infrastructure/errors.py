"""What the driver says, in the words of the domain."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.errors import (
    DocumentTooLarge as DriversDocumentTooLarge,
)

from showcase.documents.domain.documents import AlreadyThere, DocumentTooLarge, Unstorable
from showcase.kernel.errors import Unavailable

DUPLICATE_KEY = 11000
IMMUTABLE_FIELD = 66
REFUSED_BY_VALIDATOR = 121
TOO_LARGE = (10334, 17419, 17420)
"""The document itself; the one that an update would make."""
NOT_READY = (134, 211)
"""A server that has just started: it knows of no majority yet, or not the key that signed the driver's cluster time."""
_PASSING = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")
_INDEX = re.compile(r"index: (\S+)")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the driver raises into errors of the domain; what is left is a mistake of ours.

    Args:
        what: is done with what, for messages.
    """
    try:
        yield
    except DuplicateKeyError as error:
        raise already_there(what, error.details or {}) from error
    except DriversDocumentTooLarge as error:
        raise DocumentTooLarge(f"{what}: {error}") from error
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure) or error.timeout:
            raise Unavailable("mongo does not answer in time") from error
        if any(error.has_error_label(label) for label in _PASSING):
            raise Unavailable("another transaction was in the way, or the server changed: try again") from error
        if isinstance(error, OperationFailure) and error.code in NOT_READY:
            raise Unavailable("mongo has just started, and is not ready") from error
        if isinstance(error, OperationFailure) and (refusal := refused(what, error.code, error.details or {})):
            raise refusal from error
        raise
    except (BSONError, OverflowError) as error:
        raise Unstorable(f"{what}: {error}") from error


def already_there(what: str, details: Mapping[str, Any]) -> AlreadyThere:
    """The error of an index in which the same values are twice."""
    fields = list(details.get("keyPattern", {})) or _INDEX.findall(str(details.get("errmsg"))) or ["values"]
    return AlreadyThere(what, fields)


def refused(what: str, code: int | None, details: Mapping[str, Any]) -> Unstorable | DocumentTooLarge | None:
    """The error of a document that the server does not take; None for any other."""
    if code == REFUSED_BY_VALIDATOR:
        return Unstorable(f"{what}: the collection's validator refuses it", rules=_rules(details.get("errInfo", {})))
    if code in TOO_LARGE:
        return DocumentTooLarge(f"{what}: MongoDB takes no document as large")
    return None


def _rules(info: Any) -> list[str]:
    """The names of properties that a validator's answer complains of."""
    if isinstance(info, Mapping):
        own = (
            [str(info["propertyName"])] if "propertyName" in info else list(map(str, info.get("missingProperties", [])))
        )
        return own + [name for value in info.values() for name in _rules(value)]
    return [name for value in info for name in _rules(value)] if isinstance(info, list) else []
