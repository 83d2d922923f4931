"""`workshop`, or `python -m workshop`: says in one line what is missing when its packages are not installed."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from workshop.cli import app
    except ModuleNotFoundError as error:
        sys.exit(
            f"the Python package {error.name} is not installed\n  try: `make setup` installs all packages into .venv"
        )
    app()


if __name__ == "__main__":
    main()
