"""The mail server: what SMTP brings is kept, and read back as Mailpit lets it be read back."""

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.stacks import Home, short_home
from workshop.stack.local import mail_sink
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.mail import client
from workshop.stack.model import Urls, credentials, url_of

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def mail_home() -> Iterator[Home]:
    with short_home() as home:
        yield home


@pytest.fixture
def mail(mail_home: Home) -> LocalBackend:
    """A mail server with no messages."""
    backend = mail_home.backend(["mail"])
    backend.up()
    with client(backend.urls(), TIMEOUT_S) as api:
        api.request("DELETE", "/api/v1/messages").raise_for_status()
    return backend


@pytest.fixture
def api(mail: LocalBackend) -> Iterator[httpx.Client]:
    with client(mail.urls(), TIMEOUT_S) as api:
        yield api


def a_message(subject: str = "Your order", text: str = "Thank you.", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "The shop <shop@example.org>"
    message["To"] = "Ann <ann@example.org>, bob@example.org"
    message["Subject"] = subject
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def session(urls: Urls) -> smtplib.SMTP:
    url = url_of(urls, "SHOWCASE_MAIL_URL")
    assert url.hostname is not None
    assert url.port is not None
    return smtplib.SMTP(url.hostname, url.port, timeout=TIMEOUT_S)


def send(urls: Urls, *messages: EmailMessage) -> None:
    with session(urls) as smtp:
        smtp.login(*credentials(url_of(urls, "SHOWCASE_MAIL_URL")))
        for message in messages:
            smtp.send_message(message)


def listed(api: httpx.Client, **query: int) -> dict[str, Any]:
    answer: dict[str, Any] = api.get("/api/v1/messages", params=query).raise_for_status().json()
    return answer


def test_a_message_is_listed_with_its_addresses_and_read_whole(mail: LocalBackend, api: httpx.Client) -> None:
    message = a_message(Message_ID="<1@example.org>")
    message.add_alternative("<p>Thank you, Ünï.</p>", subtype="html")
    send(mail.urls(), message)
    (summary,) = listed(api)["messages"]
    assert summary["From"] == {"Name": "The shop", "Address": "shop@example.org"}
    assert [to["Address"] for to in summary["To"]] == ["ann@example.org", "bob@example.org"]
    assert (summary["Subject"], summary["MessageID"]) == ("Your order", "1@example.org")
    whole = api.get(f"/api/v1/message/{summary['ID']}").raise_for_status().json()
    assert (whole["Text"].strip(), whole["HTML"].strip()) == ("Thank you.", "<p>Thank you, Ünï.</p>")
    assert whole.items() >= summary.items()


def test_all_recipients_are_listed_also_those_whom_only_the_envelope_names(
    mail: LocalBackend, api: httpx.Client
) -> None:
    send(mail.urls(), a_message(Cc="cy@example.org", Bcc="dee@example.org"))
    (summary,) = listed(api)["messages"]
    addresses = {header: [one["Address"] for one in summary[header]] for header in ("To", "Cc", "Bcc")}
    assert addresses == {
        "To": ["ann@example.org", "bob@example.org"],
        "Cc": ["cy@example.org"],
        "Bcc": ["dee@example.org"],
    }


def test_messages_are_listed_newest_first_and_page_by_page(mail: LocalBackend, api: httpx.Client) -> None:
    send(mail.urls(), *(a_message(f"number {number}") for number in range(5)))
    page = listed(api, start=1, limit=2)
    assert [summary["Subject"] for summary in page["messages"]] == ["number 3", "number 2"]
    assert (page["total"], page["count"], page["start"]) == (5, 2, 1)
    assert api.get("/api/v1/message/latest").json()["Subject"] == "number 4"


def test_messages_are_deleted_one_or_all(mail: LocalBackend, api: httpx.Client) -> None:
    send(mail.urls(), *(a_message(f"number {number}") for number in range(3)))
    newest = listed(api)["messages"][0]["ID"]
    api.request("DELETE", "/api/v1/messages", json={"IDs": [newest, "not there"]}).raise_for_status()
    assert [summary["Subject"] for summary in listed(api)["messages"]] == ["number 1", "number 0"]
    api.request("DELETE", "/api/v1/messages").raise_for_status()
    assert listed(api)["total"] == 0


def test_messages_survive_a_restart_and_a_kill(mail: LocalBackend, api: httpx.Client) -> None:
    send(mail.urls(), a_message("before"))
    mail.act("mail", "kill")
    mail.act("mail", "restart")
    assert [summary["Subject"] for summary in listed(api)["messages"]] == ["before"]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
def test_a_message_that_is_too_large_is_refused(mail: LocalBackend, api: httpx.Client, announced: bool) -> None:
    line = b"x" * 900 + b"\r\n"
    content = b"Subject: large\r\n\r\n" + line * (15 * 2**20 // len(line))
    with session(mail.urls()) as smtp:
        smtp.login(*credentials(url_of(mail.urls(), "SHOWCASE_MAIL_URL")))
        if not announced:
            smtp.esmtp_features.pop("size")
        with pytest.raises(smtplib.SMTPResponseException) as caught:
            smtp.sendmail("a@example.org", ["b@example.org"], content)
    assert caught.value.smtp_code == 552
    assert listed(api)["total"] == 0


@pytest.mark.parametrize(
    "identifier", ["latest", "0" * 28, "F" * 28, "0" * 27, "..%2F..%2Fsecrets", "%2e%2e", "a b", "0" * 28 + "%0a"]
)
def test_an_id_of_no_message_is_not_found(api: httpx.Client, identifier: str) -> None:
    assert api.get(f"/api/v1/message/{identifier}").status_code == 404


def test_a_message_in_a_character_set_nobody_knows_is_read_all_the_same(mail: LocalBackend, api: httpx.Client) -> None:
    message = a_message()
    message.replace_header("Content-Type", 'text/plain; charset="x-unheard-of"')
    send(mail.urls(), message)
    assert api.get("/api/v1/message/latest").raise_for_status().json()["Text"].strip() == "Thank you."


def test_a_mailbox_keeps_only_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_sink, "KEPT_MESSAGES", 3)
    mailbox = mail_sink.Mailbox(tmp_path / "messages")
    added = [mailbox.add(b"Subject: %d\n\n" % number) for number in range(5)]
    assert mailbox.ids() == added[:1:-1]


def test_what_was_being_written_at_a_kill_is_no_message(tmp_path: Path) -> None:
    mailbox = mail_sink.Mailbox(tmp_path / "messages")
    identifier = mailbox.add(b"Subject: whole\n\n")
    (tmp_path / "messages" / f".{'0' * 28}").write_bytes(b"Subj")
    assert mailbox.ids() == [identifier]
