"""HTTP: what every route of every slice has in common."""
