"""Documents for routes: a repository as a dependency."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from showcase.documents.application import Repository
from showcase.documents.domain.documents import Collection, T


class Provides(Protocol):
    """Makes repositories; an app has one as `app.state.documents`."""

    def __call__(self, collection: Collection[T]) -> Repository[T]: ...


@dataclass(frozen=True, slots=True, eq=False)  # by identity: FastAPI asks for the hash, and a schema has none
class Provided(Generic[T]):
    """Gives the repository of a collection, from whatever the app was built with."""

    collection: Collection[T]

    async def __call__(self, connection: HTTPConnection) -> Repository[T]:
        provides: Provides = connection.app.state.documents
        return provides(self.collection)


def provided(collection: Collection[Any]) -> Any:
    """A dependency of a route: `orders: Annotated[Repository[OrderView], provided(ORDERS)]`."""
    return Depends(Provided(collection))
