"""Settings: no default secret outside of the workshop, no secret in any text."""

import pytest
from pydantic import ValidationError

from showcase.platform.settings import WORKSHOP_SECRETS, Settings

KEY = "x" * 32
SECRETS = f"a1:{KEY}"
URL = "postgresql://shop:s3cret@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SHOWCASE_{name.upper()}", raising=False)


def test_outside_of_the_workshop_the_default_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="SHOWCASE_SECRETS is the default one"):
        Settings()
    with pytest.raises(ValidationError, match="SHOWCASE_SECRETS is the default one"):
        Settings.model_validate({"secrets": WORKSHOP_SECRETS})

    assert Settings.model_validate({"secrets": SECRETS}).environment == "production"
    assert Settings(environment="workshop").secrets.get_secret_value() == WORKSHOP_SECRETS


def test_a_short_key_is_refused_everywhere() -> None:
    for environment in ("workshop", "production"):
        with pytest.raises(ValidationError, match="32 bytes"):
            Settings.model_validate({"environment": environment, "secrets": SECRETS[:-1]})


@pytest.mark.parametrize("wrong", [KEY, f"a1:{KEY},", f"A1:{KEY}", f":{KEY}", f"a1:{KEY},a1:{KEY}y"])
def test_secrets_have_names_of_their_own(wrong: str) -> None:
    with pytest.raises(ValidationError, match="SHOWCASE_SECRETS"):
        Settings.model_validate({"secrets": wrong})


def test_older_secrets_may_stand_behind_the_newest() -> None:
    assert Settings.model_validate({"secrets": f"b2:{KEY}y,{SECRETS}"}).environment == "production"
    with pytest.raises(ValidationError, match="is the default one"):
        Settings.model_validate({"secrets": f"b2:{KEY},{WORKSHOP_SECRETS}"})


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWCASE_ENVIRONMENT", "workshop")
    monkeypatch.setenv("SHOWCASE_IDEMPOTENCY_LIFETIME", "PT0.5S")
    monkeypatch.setenv("SHOWCASE_POSTGRES_URL", URL)

    assert Settings().idempotency_lifetime.total_seconds() == 0.5
    assert Settings().url("postgres_url") == URL


def test_no_secret_shows() -> None:
    settings = Settings.model_validate({"secrets": SECRETS, "postgres_url": URL})

    assert KEY not in f"{settings!r}{settings}"
    assert "s3cret" not in f"{settings!r}{settings}{settings.model_dump_json()}"


@pytest.mark.parametrize(
    "url", ["", "s3cret", "postgresql://", "://s3cret", "s3cret@127.0.0.1/shop", "a://b:c@d:s3cret/e"]
)
def test_a_url_that_is_missing_or_none_is_named_and_not_shown(url: str) -> None:
    settings = Settings.model_validate({"environment": "workshop", "postgres_url": url})

    with pytest.raises(ValueError, match="SHOWCASE_POSTGRES_URL") as told:
        settings.url("postgres_url")
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("name", ["database_timeout_s", "relay_poll_s", "prefetch", "drain_s"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({"environment": "workshop", name: 0})
