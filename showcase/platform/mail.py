"""Mail: one letter, handed to a server by SMTP (RFC 5321)."""

import smtplib
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

WITHIN_S = 5.0
"""For each step of the conversation."""


def send(url: str, recipient: str, subject: str, text: str, *, domain: str, mail_id: str) -> None:
    """Send a letter from the shop; blocks, so call it in a thread.

    Args:
        url: `smtp://user:password@host:port`.
        domain: what comes after the @ of our own address.
        mail_id: the same for the same letter, so that a mailbox can tell that it came twice.

    Raises smtplib.SMTPRecipientsRefused; OSError when the server is away, as all of smtplib's errors are.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = f"shop@{domain}", recipient, subject
    mail["Message-ID"] = f"<{mail_id}@{domain}>"
    mail.set_content(text)
    place = urlsplit(url)
    with smtplib.SMTP(place.hostname or "", place.port or 25, timeout=WITHIN_S) as smtp:
        if place.username:
            smtp.login(unquote(place.username), unquote(place.password or ""))
        # Named here: read out of the header, an address made of an encoded word could become another one.
        smtp.send_message(mail, to_addrs=[recipient])
