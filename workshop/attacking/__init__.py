"""What lesson 10 does to the audit: load, faults in turn, an intruder who is root, and what each of them leaves."""
