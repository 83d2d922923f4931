"""Plumbing with no business in it, shared by the slices: settings, database, Redis, Kafka, web, workers, logs.

A slice's infrastructure is built from these pieces; its domain and its use cases do not know them.
"""
