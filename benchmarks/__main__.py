"""`python -m benchmarks auth`: run one benchmark by name."""

import importlib
import sys

NAMES = ("audit", "audit_memory", "auth", "caching", "documents", "messaging", "messaging_memory", "realtime", "stack")


def main() -> int:
    """Run the benchmark that the command line names; the exit code says whether it met its targets."""
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"benchmarks.{sys.argv[1]}").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
