"""What runs in the background: recording, anchoring, and looking after the capture."""
