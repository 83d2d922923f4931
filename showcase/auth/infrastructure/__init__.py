"""Where accounts, sessions and keys are kept: PostgreSQL, Redis, a mail server; and the cryptography."""
