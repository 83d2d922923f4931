"""The system the workshop teaches: one folder a backend pattern, behind a small FastAPI app."""
