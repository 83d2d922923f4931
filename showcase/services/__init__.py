"""Payment, stock and notice: workers that know only events, each with a database schema and role of its own."""
