"""Event-driven messaging: a change and its event are one thing, and each event has its effect once.

Transactional outbox, relay with publisher confirms, RabbitMQ topology with retries and parking lot, and an
inbox on every consumer.
"""
