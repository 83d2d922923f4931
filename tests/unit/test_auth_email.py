"""Mail addresses: one spelling each, and none that another server would read as somebody else's."""

import pytest

from showcase.auth.domain.accounts import MAX_EMAIL, BadEmail, email_of


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("ada@example.org", "ada@example.org"),
        (" Ada@Example.ORG ", "ada@example.org"),
        ("o'neil+shop@mail.example.co.uk", "o'neil+shop@mail.example.co.uk"),
        ("jose\u0301@example.org", "jos\u00e9@example.org"),
    ],
)
def test_an_address_has_one_spelling(given: str, stored: str) -> None:
    assert email_of(given) == stored


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "ada@@example.org",
        "a b@example.org",
        "ada@example.org\r\nBcc: bob@example.org",
        "ada@exa\x00mple.org",
        "Ada <ada@example.org>",
        "ada@example.org,bob@example.org",
        "=?utf-8?q?=61da?=@example.org",
        "ada@-example.org",
        "\ud800@example.org",
        "a" * 65 + "@example.org",
        "a@" + "b." * MAX_EMAIL + "org",
    ],
)
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(BadEmail):
        email_of(given)


def test_a_huge_text_is_refused_at_once() -> None:
    with pytest.raises(BadEmail):
        email_of("\u0301" * 2_000_000)
