"""The lab's attacks are what they say: really signed, each refused by a rule of its own, many accepted by others."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import jwt
import pandas as pd
import pytest

from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.auth.infrastructure.jwk import SigningKey
from showcase.auth.infrastructure.keys import KeyRing, State, StoredKey
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.principal import Principal
from workshop import attacks as lab
from workshop.attacks import Attack, Family, Loot, Naive, Site, Table, accepts, pinned, send, verdicts
from workshop.attacks.forging import ecdsa, other_half, token

ISSUER, AUDIENCE = "https://shop.example", "https://shop.example/api"
KEY = SigningKey.new("ES256")


class Keys:
    """One key that signs, and one that will."""

    def __init__(self) -> None:
        self._stored = [
            StoredKey(KEY.public, State.CURRENT, b""),
            StoredKey(SigningKey.new("ES256").public, State.NEXT, b""),
        ]

    async def ensure(self) -> None:
        pass

    async def load(self) -> Sequence[StoredKey]:
        return self._stored

    def open(self, key: StoredKey) -> SigningKey:
        return KEY


async def no_pause(seconds: float) -> None:
    """A name that nobody knows has the keys loaded again, after a while: not here."""


def ours() -> AccessTokens:
    return AccessTokens(
        KeyRing(Keys(), sleep=no_pause), issuer=ISSUER, audience=AUDIENCE, clock=lambda: datetime.now(UTC)
    )


def reason(given: str) -> Reason | None:
    """Why our verifier refuses a token; None if it does not."""
    try:
        asyncio.run(ours().verify(given))
    except InvalidToken as error:
        return error.reason
    return None


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def loot(site: Site) -> Loot:
    principal = Principal(subject="households/7", scopes=frozenset({"orders:read"}), session_id=uuid4())
    genuine = asyncio.run(ours().issue(principal, timedelta(minutes=5)))
    return Loot(
        access_token=genuine,
        refresh_token=f"showcase_rt_{uuid4().hex}.{'x' * 43}",
        jwks={"keys": [KEY.public.jwk]},
        site=site,
    )


@pytest.fixture(scope="module")
def attacks(loot: Loot) -> list[Attack]:
    return lab.attacks(loot, KEY)


def test_a_genuine_token_is_accepted_by_all_verifiers(loot: Loot) -> None:
    assert accepts(Naive(loot.jwks).verify, loot.access_token)
    assert accepts(pinned(loot.jwks, AUDIENCE), loot.access_token)
    assert reason(loot.access_token) is None


def test_there_are_as_many_attacks_as_the_lesson_says_each_with_a_name_of_its_own(
    attacks: list[Attack], loot: Loot
) -> None:
    assert (len(attacks), len(lab.forged(loot)), len(lab.shaped(loot))) == (61, 28, 11)
    assert len({attack.name for attack in attacks}) == len(attacks)
    assert len({attack.token for attack in attacks}) == len(attacks)
    assert {attack.family for attack in attacks} == set(Family)


def test_each_attack_is_refused_by_the_rule_that_it_names(attacks: list[Attack]) -> None:
    assert {attack.name: reason(attack.token) for attack in attacks} == {
        attack.name: attack.reason for attack in attacks
    }


def test_what_only_we_can_sign_is_refused_though_the_signature_is_ours(attacks: list[Attack], loot: Loot) -> None:
    strays = [one for one in attacks if one.family in (Family.STRAY, Family.TIME) and one.token != loot.refresh_token]
    algorithm = jwt.get_algorithm_by_name("ES256")
    for stray in strays:
        signed, _, signature = stray.token.rpartition(".")
        raw = jwt.utils.base64url_decode(signature)
        assert algorithm.verify(signed.encode(), KEY.public.key, raw), stray.name


def test_nothing_that_the_attacker_makes_himself_has_our_signature_over_his_claims(loot: Loot) -> None:
    staff = [one for one in lab.forged(loot) if one.name != "DER signature"]
    for attack in staff:
        claims = json.loads(jwt.utils.base64url_decode(attack.token.split(".")[1]))
        assert claims["sub"] == "staff/ada", attack.name
        assert attack.token.split(".")[1] != loot.parts[1]


def test_the_naive_verifier_falls_for_whole_families(attacks: list[Attack], loot: Loot) -> None:
    naive = Naive(loot.jwks)
    fallen = Counter(attack.family for attack in attacks if accepts(naive.verify, attack.token))
    assert fallen[Family.UNSIGNED] == 6  # all that says so; not what says nothing
    assert fallen[Family.OUR_KEY] == 1  # as PEM, which is how it keeps the key
    assert fallen[Family.FOREIGN_KEY] == 6
    assert fallen[Family.SIGNATURE] == 0  # the library is good
    assert fallen[Family.FORM] >= 3
    assert fallen[Family.STRAY] >= 10
    assert fallen[Family.TIME] >= 5


def test_a_pinned_library_falls_for_nothing_that_an_attacker_can_make(attacks: list[Attack], loot: Loot) -> None:
    verify = pinned(loot.jwks, AUDIENCE)
    fallen = Counter(attack.family for attack in attacks if accepts(verify, attack.token))
    assert set(fallen) <= {Family.FORM, Family.STRAY, Family.TIME}
    assert fallen[Family.STRAY] >= 3
    assert fallen[Family.FORM] >= 1


def test_the_naive_verifier_fetches_what_the_token_names_and_gets_the_attacker_s_key(loot: Loot, site: Site) -> None:
    site.visits.clear()
    for attack in lab.forged(loot):
        accepts(Naive(loot.jwks).verify, attack.token)
    assert sorted(site.visits) == ["/certificate.pem", "/keys.json"]
    site.visits.clear()
    for attack in lab.forged(loot):
        assert reason(attack.token)
    assert site.visits == []


def test_the_site_knows_no_other_page(site: Site) -> None:
    assert httpx.get(f"{site.url}/else", timeout=5).status_code == 404


def test_the_naive_verifier_lets_the_token_write_its_query(loot: Loot) -> None:
    broken = token({"alg": "HS256", "kid": "'"}, {}, lambda _: b"")
    with pytest.raises(sqlite3.OperationalError):
        Naive(loot.jwks).verify(broken)


def test_an_ecdsa_signature_has_a_twin_and_nothing_of_ours_minds(loot: Loot) -> None:
    twin = other_half(loot.access_token)
    assert twin != loot.access_token
    assert reason(twin) is None
    assert other_half(twin) == loot.access_token


def test_a_signature_of_the_attacker_s_is_good_for_his_key_only(loot: Loot, site: Site) -> None:
    signature = ecdsa(site.key)(b"message")
    algorithm = jwt.get_algorithm_by_name("ES256")
    assert algorithm.verify(b"message", site.key.public_key(), signature)
    assert not algorithm.verify(b"message", KEY.public.key, signature)


def test_tokens_are_sent_as_they_are_and_answers_come_back_under_their_trace(attacks: list[Attack]) -> None:
    asked: list[httpx.Request] = []

    def app(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(401, headers={"WWW-Authenticate": "Bearer"}, text="no")

    with httpx.Client(transport=httpx.MockTransport(app), base_url="http://shop") as client:
        answers = send(client, attacks)
    raw = [dict(request.headers.raw)[b"Authorization"] for request in asked]
    assert raw == [b"Bearer " + attack.token.encode() for attack in attacks]
    assert [request.headers["traceparent"][3:35] for request in asked] == answers.trace.tolist()
    assert answers.trace.is_unique
    assert set(answers.status) == {401}


def test_verdicts_say_what_each_verifier_did(loot: Loot) -> None:
    some = lab.forged(loot)[:2]
    answers = pd.DataFrame({"attack": [one.name for one in some], "trace": ["a", "b"], "status": [401, 200]})
    found = verdicts(some, {"all": lambda _: 1, "none": lambda _: 1 / 0}, answers, {"a": "so"})
    assert found["all"].tolist() == [True, True]
    assert found["none"].tolist() == [False, False]
    assert found[lab.OURS].tolist() == [False, True]
    assert found.reason.tolist() == ["so", ""]


def test_the_table_has_no_token_in_it_and_its_text_is_escaped(attacks: list[Attack], loot: Loot) -> None:
    answers = pd.DataFrame({"attack": [one.name for one in attacks], "trace": "<b>", "status": 401})
    frame = verdicts(attacks, {"naive": Naive(loot.jwks).verify}, answers, {"<b>": "<i>"})
    bundle = Table(frame)._repr_mimebundle_()
    assert "<i>" not in bundle["text/html"]
    assert bundle["text/html"].count("<tr>") == 1 + len(attacks) + len(Family)
    assert "eyJ" not in bundle["text/html"] + bundle["text/plain"]
