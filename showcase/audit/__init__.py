"""Audit: every change of a row captured, attributed to an actor, provable, and drawn as a timeline.

PostgreSQL or SQL Server, through Debezium and Kafka, into sealed, insert-only records in MongoDB.
"""
