"""The rules that make an access token valid, and those that keep its keys."""

from tests.mutations import Mutation

CLAIMS = "showcase/auth/domain/tokens.py"
FORM = "showcase/auth/infrastructure/tokens.py"
JWK = "showcase/auth/infrastructure/jwk.py"
KEYS = "showcase/auth/infrastructure/keys.py"
TOKENS = "tests/unit/test_auth_tokens.py"
RING = "tests/unit/test_auth_keyring.py"

CHECKED = "        _check_signature(key, written[: -len(signature) - 1], plain_signature)"
REMEMBERED = "        self._keys[header] = key"


def attacks(*names: str) -> tuple[str, ...]:
    return tuple(f"{TOKENS}::test_an_attack_is_refused_for_its_reason[{name}]" for name in names)


def bad_keys(*names: str) -> tuple[str, ...]:
    return tuple(f"{RING}::test_no_other_key_is_ever_verified_with[{name}]" for name in names)


def of_tokens(*names: str) -> tuple[str, ...]:
    return tuple(f"{TOKENS}::{name}" for name in names)


def of_ring(*names: str) -> tuple[str, ...]:
    return tuple(f"{RING}::{name}" for name in names)


def check(rule: str, file: str, condition: str, tests: tuple[str, ...]) -> Mutation:
    """A check whose condition is never true any more."""
    return Mutation(rule=rule, file=file, old=f"if {condition}:", new=f"if False and ({condition}):", tests=tests)


def refused_member(name: str, attack: str) -> Mutation:
    """A member of the header that is ignored."""
    old = f'    "{name}": Reason.'
    return Mutation(
        rule=f"no {name} in the header", file=FORM, old=old, new=f'    "no {name}": Reason.', tests=attacks(attack)
    )


MUTATIONS = (
    # -- form
    check("at most 8 KiB", FORM, "len(token) > MAX_BYTES", attacks("longer than 8 KiB")),
    check("ASCII only", FORM, "not token.isascii()", attacks("full-width letters", "half a surrogate")),
    check("no JSON serialisation", FORM, 'written.lstrip().startswith(b"{")', attacks("JSON serialisation, flattened")),
    check("three parts", FORM, "len(parts) != 3", attacks("four parts", "two parts")),
    check("no empty part", FORM, "not header or not claims", attacks("no claims: detached")),
    check("no padding", FORM, 'part.endswith(b"=")', attacks("padding of the signature")),
    check("base64url alphabet only", FORM, "part.translate(None, _BASE64URL)", attacks("a line feed after")),
    check("no impossible length", FORM, "len(part) % 4 == 1", attacks("one letter too many")),
    check(
        "no trailing bits",
        FORM,
        'base64.urlsafe_b64encode(plain).rstrip(b"=") != part',
        attacks("trailing bits of the signature"),
    ),
    check("a JSON object", FORM, "not isinstance(found, dict)", attacks("a header that is a list")),
    check("every member once", FORM, "len(found) < len(members)", attacks("sub twice", "alg twice")),
    Mutation(
        rule="NaN is no JSON",
        file=FORM,
        old=", parse_constant=_no_constant",
        new="",
        tests=attacks("exp NaN"),
    ),
    Mutation(
        rule="deep JSON is no crash",
        file=FORM,
        old="except (ValueError, RecursionError)",
        new="except ValueError",
        tests=attacks("claims of 2,000 brackets"),
    ),
    # -- header
    refused_member("crit", "crit"),
    refused_member("jwk", "a key in the header (jwk)"),
    refused_member("jku", "a key by URL (jku)"),
    refused_member("x5u", "a certificate by URL (x5u)"),
    refused_member("x5c", "a certificate (x5c)"),
    refused_member("x5t", "a certificate by hash (x5t)"),
    refused_member("x5t#S256", "a certificate by SHA-256 (x5t#S256)"),
    refused_member("b64", "b64 false"),
    refused_member("zip", "zip"),
    refused_member("cty", "a token in a token"),
    check(
        "not algorithm none",
        FORM,
        'isinstance(algorithm, str) and algorithm.lower() == "none"',
        attacks("alg nOnE"),
    ),
    check("typ at+jwt", FORM, 'header.get("typ") not in ACCEPTED_TYPES', attacks("an ID token (typ JWT)")),
    check(
        "kid a thumbprint",
        FORM,
        "not isinstance(kid, str) or not _KID.fullmatch(kid)",
        attacks("kid SQL", "kid a path"),
    ),
    check("the algorithm of the key", FORM, "algorithm != key.algorithm", attacks("HMAC with our public key, PEM")),
    Mutation(
        rule="only our keys",
        file=FORM,
        old="        if key is None:\n            raise InvalidToken(Reason.UNKNOWN_KEY)\n",
        new="        key = key or next(one.public for one in self._ring._known.values())\n",
        tests=attacks("a key of the attacker's own"),
    ),
    # -- signature
    check("64 bytes of signature", FORM, "len(signature) != SIGNATURE_BYTES", attacks("an ASN.1 signature")),
    check("r is not zero", FORM, "not any(signature[:half]) or not any(signature[half:])", attacks("r zero", "s zero")),
    check(
        "the signature of the key",
        FORM,
        "not key.verifies(message, signature)",
        attacks("another key under our kid", "other claims"),
    ),
    Mutation(
        rule="only genuine headers are remembered",
        file=FORM,
        old="\n".join((CHECKED, REMEMBERED)),
        new="\n".join((REMEMBERED, CHECKED)),
        tests=of_tokens("test_headers_of_strangers_are_not_remembered"),
    ),
    # -- claims
    check("our issuer", CLAIMS, '_text(claims, "iss") != issuer', attacks("iss with a slash")),
    check("our audience", CLAIMS, "audience not in _audiences(claims)", attacks("for others", "for somebody else")),
    check(
        "a plain subject",
        CLAIMS,
        "len(subject) > MAX_SUBJECT or not _SUBJECT.fullmatch(subject)",
        attacks("sub with a NUL byte", "sub very long"),
    ),
    Mutation(
        rule="a client",
        file=CLAIMS,
        old='    _text(claims, "client_id")\n',
        new="",
        tests=attacks("no client_id"),
    ),
    Mutation(rule="an id", file=CLAIMS, old='    _text(claims, "jti")\n', new="", tests=attacks("no jti")),
    check("a scope of scopes", CLAIMS, "not _SCOPE.fullmatch(scope)", attacks("scope with a line feed")),
    check("not expired", CLAIMS, "now >= expires_at", attacks("expired", "expired just now")),
    Mutation(
        rule="over at exp, not after",
        file=CLAIMS,
        old="if now >= expires_at:",
        new="if now > expires_at:",
        tests=attacks("expired just now"),
    ),
    check(
        "not issued in the future",
        CLAIMS,
        '_time(claims, "iat") > now + CLOCK_SKEW_S',
        attacks("issued in the future"),
    ),
    check(
        "valid already",
        CLAIMS,
        '"nbf" in claims and _time(claims, "nbf") > now + CLOCK_SKEW_S',
        attacks("not valid yet"),
    ),
    Mutation(
        rule="true is no time",
        file=CLAIMS,
        old=" or isinstance(value, bool):",
        new=":",
        tests=attacks("exp true"),
    ),
    check("a time in the calendar", CLAIMS, "not 0 <= value <= _LAST_TIME", attacks("exp 1e400", "exp negative")),
    check("text is text", CLAIMS, "not isinstance(value, str)", attacks("jti a number", "client_id a number")),
    check(
        "lists of text",
        CLAIMS,
        "not isinstance(value, list) or not all(isinstance(one, str) for one in value)",
        attacks("amr with a number", "for us and a number"),
    ),
    check("a session in one spelling", CLAIMS, "str(found) != written", attacks("sid in another spelling")),
    # -- what is remembered
    Mutation(
        rule="a remembered token ends, too",
        file=FORM,
        old="elif known.expires_at is None or self._clock() >= known.expires_at:",
        new="elif known.expires_at is None:",
        tests=of_tokens("test_a_token_ends_at_its_time_also_when_it_was_seen_before"),
    ),
    check(
        "forgotten when keys change",
        FORM,
        "self._version != self._ring.version",
        of_tokens("test_a_key_that_is_gone_takes_its_tokens_with_it"),
    ),
    check(
        "a bounded memory",
        FORM,
        "len(self._verified) >= self._cached",
        of_tokens("test_the_memory_of_verified_tokens_is_bounded"),
    ),
    Mutation(
        rule="one answer for all reasons",
        file=CLAIMS,
        old='super().__init__("the access token is not valid")',
        new="super().__init__(reason)",
        tests=attacks("expired"),
    ),
    # -- keys
    check("no private key is public", JWK, '"d" in jwk', bad_keys("private")),
    check(
        "keys for verifying only",
        JWK,
        'jwk.get("use") != "sig" or jwk.get("key_ops") != ["verify"]',
        bad_keys("for encryption", "for signing"),
    ),
    check(
        "one algorithm a key",
        JWK,
        '[jwk.get("alg"), jwk.get("kty"), jwk.get("crv")] not in _KINDS',
        bad_keys("P-256 as EdDSA", "algorithm none"),
    ),
    check("a key under its own name", JWK, 'jwk.get("kid") != found.kid', bad_keys("the name of another")),
    check(
        "one look-up a second",
        KEYS,
        "self._ended_s < moment_s",
        of_ring("test_a_key_that_is_new_is_found_among_names_that_are_made_up"),
    ),
    Mutation(
        rule="look-ups are a second apart",
        file=KEYS,
        old="max(0.0, self._begun_s + LOOK_AGAIN_S - self._monotonic())",
        new="0.0",
        tests=of_ring("test_names_that_are_made_up_cost_one_look_up_a_second"),
    ),
    Mutation(
        rule="one look-up for all",
        file=KEYS,
        old="if self._ended_s < moment_s:",
        new="if True:",
        tests=of_ring("test_names_that_are_made_up_cost_one_look_up_a_second"),
    ),
    check(
        "a bounded queue",
        KEYS,
        "self._waiting >= MAX_WAITING",
        of_ring("test_a_queue_for_unknown_keys_has_an_end"),
    ),
    check(
        "nobody signs alone for long",
        KEYS,
        "self._monotonic() - self._loaded_s > SIGN_ALONE_S",
        of_ring("test_without_the_database_a_process_goes_on_with_what_it_knows"),
    ),
    check(
        "what signs is looked up",
        KEYS,
        "now_s - self._loaded_s > CURRENT_FOR_S",
        of_ring("test_what_signs_is_looked_up_every_five_seconds"),
    ),
)
