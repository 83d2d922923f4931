"""Benchmarks: ours beside its peers or its targets, in one run. `python -m benchmarks NAME`."""
