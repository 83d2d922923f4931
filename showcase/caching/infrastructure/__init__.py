"""The cache's second level in Redis, and the line along which processes tell one another what they have changed."""
