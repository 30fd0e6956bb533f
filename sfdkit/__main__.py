"""``python -m sfdkit``."""

from sfdkit.cli import entry

if __name__ == "__main__":
    entry()
