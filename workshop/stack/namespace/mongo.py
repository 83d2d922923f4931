"""MongoDB: a database, which comes into being with its first document."""

from pymongo.errors import PyMongoError

from workshop.stack.local.mongo import client
from workshop.stack.model import Urls
from workshop.stack.namespace.part import Trace, found, in_server, speaking_to

VARIABLE = "SHOWCASE_MONGO_URL"


class MongoPart:
    """A namespace's MongoDB database."""

    server = "mongo"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        """Nothing to make."""

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, PyMongoError), client(self.urls[VARIABLE], self.within_s) as session:
            return found("mongo database", session.list_database_names(), name)

    def drop(self, name: str) -> None:
        with speaking_to(self.server, PyMongoError), client(self.urls[VARIABLE], self.within_s) as session:
            session.drop_database(in_server(name))
