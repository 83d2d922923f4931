"""The MongoDB data provider: the layer between a service and its documents.

Typed documents, optimistic concurrency, transactions, schema versions, keyset paging and change streams.
"""
