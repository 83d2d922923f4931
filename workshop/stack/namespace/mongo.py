"""MongoDB: a database, which comes into being with its first document, and the user in it that writes the audit."""

from pymongo.errors import PyMongoError

from showcase.audit.infrastructure.access import WRITER, let_writer_in
from workshop.stack.local.mongo import client
from workshop.stack.model import Urls, credentials, url_of
from workshop.stack.namespace.part import Trace, found, in_server, speaking_to

VARIABLE = "SHOWCASE_MONGO_URL"


class MongoPart:
    """A namespace's MongoDB database; its users and their roles go with it."""

    server = "mongo"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        _, password = credentials(url_of(self.urls, VARIABLE))
        with speaking_to(self.server, PyMongoError), client(self.urls[VARIABLE], self.within_s) as session:
            let_writer_in(session[in_server(name)], password)

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, PyMongoError), client(self.urls[VARIABLE], self.within_s) as session:
            users = session.admin["system.users"].distinct("db", {"user": WRITER})
            return [
                *found("mongo database", session.list_database_names(), name),
                *found("mongo users", map(str, users), name),
            ]

    def drop(self, name: str) -> None:
        with speaking_to(self.server, PyMongoError), client(self.urls[VARIABLE], self.within_s) as session:
            database = session[in_server(name)]
            database.command("dropAllUsersFromDatabase")
            database.command("dropAllRolesFromDatabase")
            session.drop_database(database.name)


def writer_url(urls: Urls, database: str) -> str:
    """By which the audit's records are written: the stack's password, a user of the database's own."""
    url = url_of(urls, VARIABLE)
    colon, password = url.netloc.rpartition("@")[0].partition(":")[1:]
    place = url.netloc.rpartition("@")[2]
    options = "&".join(one for one in url.query.split("&") if one and not one.startswith("authSource="))
    return url._replace(
        netloc=f"{WRITER}{colon}{password}@{place}",
        path=f"/{database}",
        query="&".join(filter(None, [options, f"authSource={database}"])),
    ).geturl()
