"""Everything that runs the lessons and is not the system they teach."""
