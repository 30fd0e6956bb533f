"""Commands with many options: a dataclass holds the options, its method runs the command.

Commands share options by inheritance. ``auto_cli`` makes an option of each field, with the help of the docstrings of
all classes; a field named ``from_`` becomes ``--from``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Command(ABC):
    """A command; subclasses are dataclasses of its options."""

    positional = False  # without an annotation, which would make an option of it
    """Whether options without a default are given by their place, without their names."""

    @abstractmethod
    def run(self) -> object:
        """Run the command with these options."""
