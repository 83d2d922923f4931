"""Documents in MongoDB, by PyMongo's own asynchronous client."""
