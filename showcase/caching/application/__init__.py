"""What can be done with a cache, and the ports that it needs."""
