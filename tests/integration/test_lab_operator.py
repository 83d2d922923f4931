"""What a lesson does as an operator would: commands, logs, and the key that signs."""

from collections.abc import Iterator

import pytest

from workshop.lab import Lab
from workshop.stack import Stack, StackError


@pytest.fixture(scope="module")
def lab(stack: Stack) -> Iterator[Lab]:
    lab = Lab("99")
    yield lab
    lab.close()


def current(lab: Lab) -> str:
    return str(lab.sql("SELECT kid FROM auth.keys WHERE state = 'current'").kid[0])


def test_a_command_works_on_the_namespace_of_the_lesson_under_the_settings_given(lab: Lab) -> None:
    lab.command("keys", "list")
    before = current(lab)
    said = lab.command("keys", "rotate", token_algorithm="EdDSA")
    assert {line.split()[2] for line in said.splitlines()} == set(lab.sql("SELECT kid FROM auth.keys").kid)
    assert current(lab) != before
    assert lab.sql("SELECT algorithm FROM auth.keys WHERE state = 'next'").algorithm.tolist() == ["EdDSA"]


def test_a_command_that_fails_says_why(lab: Lab) -> None:
    with pytest.raises(StackError, match="no signing key has this kid"):
        lab.command("keys", "revoke", "none")


def test_the_signing_key_is_the_one_that_signs(lab: Lab) -> None:
    lab.command("keys", "rotate")
    assert lab.signing_key().public.kid == current(lab)


def test_the_log_is_what_all_processes_of_a_name_have_logged(lab: Lab) -> None:
    shop = lab.app(processes=2)
    traces = [f"{number:032x}" for number in (1, 2)]
    for trace in traces:
        headers = {"traceparent": f"00-{trace}-{1:016x}-01", "Authorization": "Bearer a.b.c.d"}
        assert shop.get("/me", headers=headers).status_code == 401
    log = lab.log("app")
    refused = log[log.event == "token refused"]
    assert refused.trace.tolist() == traces
    assert refused.reason.nunique() == 1
    assert lab.log("nobody").empty
