"""The cache, built from resources."""

from showcase.caching.application import Cache
from showcase.caching.infrastructure import RedisStore
from showcase.platform.resources import Resources


def build(resources: Resources) -> Cache:
    """A cache in redis-cache. Raises ValueError when its URL is not set."""
    settings = resources.settings
    store = RedisStore(
        resources.redis_cache, prefix=f"{settings.redis_prefix}cache:", timeout_s=settings.cache_timeout_s
    )
    return Cache(store)
