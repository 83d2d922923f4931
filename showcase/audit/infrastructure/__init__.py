"""The audit's records, seals and anchors in MongoDB, PostgreSQL and Kafka."""
