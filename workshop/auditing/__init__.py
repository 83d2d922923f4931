"""The experiments of the lessons on the audit: changes made by hand, traced, replayed, and rebuilt from records."""
