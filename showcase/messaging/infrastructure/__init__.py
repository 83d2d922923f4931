"""Outbox and inbox in PostgreSQL, and the broker."""
