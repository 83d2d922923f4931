"""Who may write the audit: a user of MongoDB that inserts and reads, and can neither change nor remove anything.

Nor may it make an index: one with a time limit would remove records.
"""

from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from showcase.audit.infrastructure.records import RECORDS, SEALS

WRITER = "audit_writer"
THERE_ALREADY = (51_002, 51_003)
"""A role, or a user, of this name."""


def let_writer_in(database: Database[Any], password: str) -> None:
    """Make the writer of a database, with what it may do; harmless when it is there.

    Args:
        database: as somebody who may make users in it.

    Raises pymongo.errors.PyMongoError.
    """
    privileges = [
        {"resource": {"db": database.name, "collection": one.name}, "actions": ["find", "insert"]}
        for one in (RECORDS, SEALS)
    ]
    for command in (
        {"createRole": WRITER, "privileges": privileges, "roles": []},
        {"createUser": WRITER, "pwd": password, "roles": [WRITER]},
    ):
        try:
            database.command(command)
        except OperationFailure as error:
            if error.code not in THERE_ALREADY:
                raise
