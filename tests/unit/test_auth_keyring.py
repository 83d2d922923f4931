"""Keys: which are ever verified with, and how a process comes to know them without asking for each token."""

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from showcase.auth.infrastructure.jwk import Algorithm, BadKey, SigningKey, VerifyingKey
from showcase.auth.infrastructure.keys import (
    CURRENT_FOR_S,
    LOOK_AGAIN_S,
    MAX_WAITING,
    SIGN_ALONE_S,
    KeyRing,
    State,
    StoredKey,
)
from showcase.kernel.errors import Unavailable
from tests.fakes_keys import MemoryKeys

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)
TICK_S = 1e-6


class Time:
    """Seconds that go by when somebody sleeps or a test says so, and a little whenever somebody looks."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        self.now_s += TICK_S
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now_s += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def keys() -> MemoryKeys:
    return MemoryKeys()


@pytest.fixture
def ring(keys: MemoryKeys, time: Time) -> KeyRing:
    return KeyRing(keys, monotonic=time, sleep=time.sleep)


def made_up(number: int) -> str:
    return f"{number:043}"


# -- the keys themselves


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_key_is_read_as_it_was_written(algorithm: Algorithm) -> None:
    key = SigningKey.new(algorithm)
    again = SigningKey.read(key.der())

    assert again.public == VerifyingKey.read(json.loads(json.dumps(key.public.jwk))) == key.public
    assert key.public.algorithm == algorithm
    assert {name: key.public.jwk[name] for name in ("use", "key_ops", "alg", "kid")} == {
        "use": "sig",
        "key_ops": ["verify"],
        "alg": algorithm,
        "kid": key.public.kid,
    }
    assert "d" not in key.public.jwk


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def test_the_examples_of_the_standards_hold() -> None:
    ed25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}  # RFC 8037 §A
    named = {**ed25519, "alg": "EdDSA", "use": "sig", "key_ops": ["verify"]}
    key = VerifyingKey.read({**named, "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"})
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert key.verifies(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", decoded(signature))
    assert not key.verifies(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmd", decoded(signature))

    x, y = (int.from_bytes(decoded(SHARED[name]), "big") for name in "xy")  # RFC 7515 §A.3
    es256 = VerifyingKey.of(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
    claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    message = f"eyJhbGciOiJFUzI1NiJ9.{claims}".encode()
    signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    assert es256.verifies(message, decoded(signature))
    assert not es256.verifies(message + b"A", decoded(signature))


SHARED = {
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
GOOD = SigningKey.new("ES256").public.jwk
ROLE = {"use": "sig", "key_ops": ["verify"], "alg": "ES256", "kid": GOOD["kid"]}
OWNER = ec.generate_private_key(ec.SECP256R1())
PRIVATE = ECAlgorithm.to_jwk(OWNER, as_dict=True)
P384 = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
SECP256K1 = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True)
RSA = RSAAlgorithm.to_jwk(rsa.generate_private_key(65_537, 2_048).public_key(), as_dict=True)
ED448 = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
X25519 = base64.urlsafe_b64encode(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
BAD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "RSA": {**RSA, **ROLE, "key_ops": ["verify"], "alg": "RS256"},
    "RSA as ES256": {**RSA, **ROLE},
    "a secret": {"kty": "oct", "k": "c2VjcmV0", **ROLE, "alg": "HS256"},
    "P-384 with its own algorithm": {**P384, **ROLE, "alg": "ES384"},
    "P-384 as ES256": {**P384, **ROLE},
    "secp256k1 as ES256": {**SECP256K1, **ROLE},
    "secp256k1 under another name": {**SECP256K1, **ROLE, "crv": "P-256"},
    "Ed448": {**ED448, **ROLE, "alg": "EdDSA"},
    "X25519": {"kty": "OKP", "crv": "X25519", "x": X25519, **ROLE, "alg": "EdDSA"},
    "P-256 as EdDSA": {**GOOD, "alg": "EdDSA"},
    "no algorithm": {name: value for name, value in GOOD.items() if name != "alg"},
    "algorithm none": {**GOOD, "alg": "none"},
    "algorithm a list": {**GOOD, "alg": ["ES256"]},
    "for encryption": {**GOOD, "use": "enc"},
    "for no use": {name: value for name, value in GOOD.items() if name != "use"},
    "for signing": {**GOOD, "key_ops": ["sign"]},
    "for more than verifying": {**GOOD, "key_ops": ["verify", "encrypt"]},
    "private": {**PRIVATE, **ROLE, "kid": VerifyingKey.of(OWNER.public_key()).kid},
    "not on the curve": {**GOOD, "y": GOOD["x"]},
    "a short coordinate": {**GOOD, "x": "AAAA"},
    "a coordinate that is no text": {**GOOD, "x": 1},
    "a coordinate that is missing": {name: value for name, value in GOOD.items() if name != "y"},
    "the name of another": {**GOOD, "kid": SigningKey.new("ES256").public.kid},
    "no name": {name: value for name, value in GOOD.items() if name != "kid"},
}


@pytest.mark.parametrize("bad", BAD)
def test_no_other_key_is_ever_verified_with(bad: str) -> None:
    with pytest.raises(BadKey):
        VerifyingKey.read(BAD[bad])


def test_a_private_key_of_another_kind_is_not_read() -> None:
    stranger = rsa.generate_private_key(65_537, 2_048)
    with pytest.raises(BadKey):
        SigningKey.read(stranger.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


# -- what a process knows


async def test_the_first_to_ask_makes_the_keys(ring: KeyRing, keys: MemoryKeys) -> None:
    signing = await ring.current()
    assert await ring.find(signing.public.kid) == signing.public
    assert [key.state for key in await keys.load()] == [State.CURRENT, State.NEXT]


async def test_all_public_keys_are_published_and_no_private_one(ring: KeyRing, keys: MemoryKeys) -> None:
    with pytest.raises(Unavailable):
        ring.jwks()
    await keys.rotate(MINUTE)
    await ring.reload()

    assert [jwk["kid"] for jwk in ring.jwks()["keys"]] == [key.public.kid for key in await keys.load()]
    assert len(ring.jwks()["keys"]) == 3
    assert all("d" not in jwk for jwk in ring.jwks()["keys"])


async def test_what_signs_is_looked_up_every_five_seconds(ring: KeyRing, keys: MemoryKeys, time: Time) -> None:
    before = await ring.current()
    kid = await keys.rotate(MINUTE)

    time.now_s += CURRENT_FOR_S - 0.01
    assert await ring.current() is before
    time.now_s += 0.02
    assert (await ring.current()).public.kid == kid
    assert await ring.find(before.public.kid) == before.public


async def test_a_key_that_is_known_is_not_looked_up(ring: KeyRing, keys: MemoryKeys, time: Time) -> None:
    kid = (await ring.current()).public.kid
    time.now_s += 3_600
    assert await ring.find(kid)
    assert keys.loads == 2  # before and after they were made


async def test_names_that_are_made_up_cost_one_look_up_a_second(ring: KeyRing, keys: MemoryKeys, time: Time) -> None:
    await ring.reload()
    before, began_s, rounds = keys.loads, time.now_s, 5

    for _ in range(rounds):
        assert await asyncio.gather(*(ring.find(made_up(number)) for number in range(200))) == [None] * 200

    assert keys.loads - before == rounds
    assert time.now_s - began_s == pytest.approx(rounds * LOOK_AGAIN_S, abs=0.01)


async def test_a_key_that_is_new_is_found_among_names_that_are_made_up(ring: KeyRing, keys: MemoryKeys) -> None:
    await ring.reload()
    for _ in range(3):
        kid = await keys.rotate(MINUTE)
        newest = (await keys.load())[-1].public
        found = await asyncio.gather(ring.find(made_up(1)), ring.find(newest.kid), ring.find(kid))
        assert found[0] is None
        assert found[1] == newest
        assert found[2]


class SlowKeys(MemoryKeys):
    """A load reads the table at once, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.read = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()

    async def load(self) -> Sequence[StoredKey]:
        found = await super().load()
        self.read.set()
        await self.let.wait()
        return found


async def test_a_key_made_while_others_are_looked_up_is_found(time: Time) -> None:
    keys = SlowKeys()
    ring = KeyRing(keys, monotonic=time, sleep=time.sleep)
    await ring.reload()
    keys.let.clear()
    keys.read.clear()
    early = asyncio.create_task(ring.find(made_up(1)))
    await keys.read.wait()

    time.now_s += 0.1
    await keys.rotate(MINUTE)
    kid = keys._stored[-1].public.kid
    late = asyncio.create_task(ring.find(kid))
    keys.let.set()

    assert await early is None
    assert await late


async def test_whoever_gives_up_leaves_the_look_up_to_the_next(time: Time) -> None:
    keys = SlowKeys()
    ring = KeyRing(keys, monotonic=time, sleep=time.sleep)
    await ring.reload()
    await keys.rotate(MINUTE)
    kid = keys._stored[-1].public.kid
    keys.let.clear()
    keys.read.clear()
    first, second = asyncio.create_task(ring.find(made_up(1))), asyncio.create_task(ring.find(kid))
    await keys.read.wait()
    first.cancel()
    keys.let.set()

    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_queue_for_unknown_keys_has_an_end(ring: KeyRing) -> None:
    await ring.reload()
    more = 5
    asked = (ring.find(made_up(number)) for number in range(MAX_WAITING + more))

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in answers[MAX_WAITING:]] == [Unavailable] * more
    assert answers[:MAX_WAITING] == [None] * MAX_WAITING


async def test_without_the_database_a_process_goes_on_with_what_it_knows(
    ring: KeyRing, keys: MemoryKeys, time: Time
) -> None:
    signing = await ring.current()
    keys.away = True

    time.now_s += SIGN_ALONE_S - 0.1
    assert await ring.current() is signing
    assert await ring.find(signing.public.kid)
    with pytest.raises(Unavailable):
        await ring.find(made_up(1))
    time.now_s += 0.2
    with pytest.raises(Unavailable):
        await ring.current()
    assert await ring.find(signing.public.kid)

    keys.away = False
    time.now_s += LOOK_AGAIN_S
    assert await ring.current() is signing


async def test_without_the_database_and_without_keys_nothing_works(ring: KeyRing, keys: MemoryKeys) -> None:
    keys.away = True
    for call in (ring.current(), ring.find(made_up(1)), ring.reload()):
        with pytest.raises(Unavailable):
            await call


async def test_a_database_that_is_away_is_asked_once_for_all(ring: KeyRing, keys: MemoryKeys, time: Time) -> None:
    await ring.reload()
    keys.away = True
    before = keys.loads

    asked = (ring.find(made_up(number)) for number in range(100))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    time.now_s += CURRENT_FOR_S - LOOK_AGAIN_S + 0.5
    await asyncio.gather(*(ring.current() for _ in range(100)))

    assert [type(answer) for answer in answers] == [Unavailable] * 100
    assert keys.loads - before == 2


async def test_the_version_changes_with_the_keys_and_only_then(ring: KeyRing, keys: MemoryKeys) -> None:
    await ring.reload()
    seen = [ring.version]
    await ring.reload()
    assert ring.version == seen[-1]
    for change in (keys.rotate(MINUTE), keys.revoke((await ring.current()).public.kid)):
        await change
        await ring.reload()
        assert ring.version not in seen
        seen.append(ring.version)


async def test_a_key_that_was_revoked_neither_signs_nor_verifies(ring: KeyRing, keys: MemoryKeys) -> None:
    gone = (await ring.current()).public.kid
    await keys.revoke(gone)
    await ring.reload()
    assert (await ring.current()).public.kid != gone
    assert await ring.find(gone) is None
