"""What a document is, and how others are found by what is in them. No I/O, no driver."""
