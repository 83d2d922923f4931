"""A real SMTP server that delivers nothing: messages are kept on disk and read back over HTTP.

The HTTP side answers as Mailpit does (GET /api/v1/info, /messages, /message/{ID}; DELETE /messages), so that
a lesson reads its mail the same way on the local stack and in compose. Both sides ask for the password.
Run as a module; SHOWCASE_MAIL_URL, SHOWCASE_MAIL_API_URL and MAIL_FOLDER say where.
"""

import asyncio
import email
import email.policy
import hmac
import logging
import os
import re
import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Annotated, Any

import aiosmtpd
import uvicorn
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel

from workshop.stack.model import credentials, url_of

KEPT_MESSAGES = 5_000
LARGEST_MESSAGE_BYTES = 10 * 1024 * 1024
ID = re.compile(r"[0-9a-f]{28}")

Json = dict[str, Any]


class Mailbox:
    """Messages in a folder, newest first, bounded in number.

    Args:
        folder: one file a message; its name, a time and some chance, is the message's id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, content: bytes) -> str:
        """Store a message, drop the oldest above the bound, and return its id."""
        identifier = f"{time.time_ns():016x}{secrets.token_hex(6)}"
        temporary = self.folder / f".{identifier}"
        temporary.write_bytes(content)
        temporary.rename(self.folder / f"{identifier}.eml")
        self.remove(self.ids()[KEPT_MESSAGES:])
        return identifier

    def ids(self) -> list[str]:
        """All ids, newest first."""
        return sorted((path.stem for path in self.folder.glob("[0-9a-f]*.eml")), reverse=True)

    def remove(self, identifiers: list[str]) -> None:
        """Remove messages; an id that is not there is no error."""
        for identifier in identifiers:
            if ID.fullmatch(identifier):
                (self.folder / f"{identifier}.eml").unlink(missing_ok=True)

    def read(self, identifier: str, *, whole: bool) -> Json | None:
        """One message in Mailpit's form, with its texts if `whole`; None when it is not there."""
        if not ID.fullmatch(identifier):
            return None
        try:
            content = (self.folder / f"{identifier}.eml").read_bytes()
        except FileNotFoundError:
            return None
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        summary: Json = {
            "ID": identifier,
            "MessageID": str(message["Message-ID"] or "").strip("<>"),
            "From": next(iter(addresses(message, "From")), None),
            "To": addresses(message, "To"),
            "Cc": addresses(message, "Cc"),
            "Bcc": addresses(message, "Bcc"),
            "Subject": str(message["Subject"] or ""),
            "Size": len(content),
        }
        if whole:
            summary |= {"Text": text(message, "plain"), "HTML": text(message, "html")}
        return summary


def addresses(message: EmailMessage, header: str) -> list[Json]:
    """The addresses of a header, in Mailpit's form."""
    found = getaddresses([str(value) for value in message.get_all(header, [])])
    return [{"Name": name, "Address": address} for name, address in found if address]


def with_hidden_recipients(content: bytes, recipients: Sequence[str]) -> bytes:
    """The message with a Bcc header for those recipients of its envelope that its headers do not name."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    named = {one["Address"].lower() for header in ("To", "Cc", "Bcc") for one in addresses(message, header)}
    hidden = [recipient for recipient in recipients if recipient.lower() not in named]
    return (f"Bcc: {', '.join(hidden)}\r\n".encode() if hidden else b"") + content


def text(message: EmailMessage, subtype: str) -> str:
    """The body of one kind; empty when the message has none."""
    part = message.get_body(preferencelist=(subtype,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except LookupError:  # a character set that nobody knows
        return bytes(part.get_payload(decode=True) or b"").decode("latin-1")


class Sink:
    """What aiosmtpd calls when a message is complete."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        content = envelope.content
        assert isinstance(content, bytes)
        kept = with_hidden_recipients(content, envelope.rcpt_tos)
        identifier = await asyncio.to_thread(self.mailbox.add, kept)
        return f"250 kept as {identifier}"


class Removal(BaseModel):
    """The body of DELETE /api/v1/messages: all messages when it names none."""

    IDs: list[str] = []


def same(given: tuple[str, str], wanted: tuple[str, str]) -> bool:
    """Compare user and password in constant time."""
    return hmac.compare_digest("\0".join(given).encode(), "\0".join(wanted).encode())


def create_api(mailbox: Mailbox, login: tuple[str, str]) -> FastAPI:
    """The reading side."""

    def authenticated(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
        if not same((given.username, given.password), login):
            raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})

    api = FastAPI(dependencies=[Depends(authenticated)], openapi_url=None)

    @api.get("/api/v1/info")
    def info() -> Json:
        return {"Version": aiosmtpd.__version__, "Messages": len(mailbox.ids())}

    @api.get("/api/v1/messages")
    def messages(start: int = 0, limit: int = 50) -> Json:
        ids = mailbox.ids()
        page = ids[max(0, start) :][: max(0, min(limit, KEPT_MESSAGES))]
        found = [summary for one in page if (summary := mailbox.read(one, whole=False))]
        return {"total": len(ids), "count": len(found), "start": start, "messages": found}

    @api.get("/api/v1/message/{identifier}")
    def message(identifier: str) -> Json:
        found = mailbox.read(mailbox.ids()[0] if identifier == "latest" and mailbox.ids() else identifier, whole=True)
        if found is None:
            raise HTTPException(404, "message not found")
        return found

    @api.delete("/api/v1/messages")
    def remove(body: Removal | None = None) -> str:
        mailbox.remove(body.IDs if body and body.IDs else mailbox.ids())
        return "ok"

    return api


async def serve(settings: Mapping[str, str]) -> None:
    """Serve SMTP and HTTP until SIGTERM."""
    smtp, http = url_of(settings, "SHOWCASE_MAIL_URL"), url_of(settings, "SHOWCASE_MAIL_API_URL")
    mailbox = Mailbox(Path(settings["MAIL_FOLDER"]) / "messages")
    login = credentials(smtp)

    def authenticate(server: object, session: object, envelope: object, mechanism: str, given: object) -> AuthResult:
        known = isinstance(given, LoginPassword) and same((given.login.decode(), given.password.decode()), login)
        return AuthResult(success=known, handled=False)

    def protocol() -> SMTP:
        return SMTP(
            Sink(mailbox),
            data_size_limit=LARGEST_MESSAGE_BYTES,
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=False,  # loopback only
            loop=asyncio.get_running_loop(),
        )

    sink = await asyncio.get_running_loop().create_server(protocol, smtp.hostname, smtp.port or 0)
    config = uvicorn.Config(
        create_api(mailbox, login), host=http.hostname or "", port=http.port or 0, log_level="warning", access_log=False
    )
    async with sink:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # it warns at each login that there is no TLS
    warnings.simplefilter("ignore")
    asyncio.run(serve(os.environ))
