"""Commands with many options: a dataclass holds the options, its method runs the command.

Commands share options by inheritance. ``auto_cli`` makes an option of each field, with the help of the docstrings of
all classes; a field named ``from_`` becomes ``--from``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jsonargparse.typing import restricted_number_type

Port = restricted_number_type("Port", int, [(">=", 0), ("<=", 65535)])
"""A port of this machine; 0 is for any that is free."""


class Command(ABC):
    """A command; subclasses are dataclasses of its options."""

    positional = False  # without an annotation, which would make an option of it
    """Whether options without a default are given by their place, without their names."""

    @abstractmethod
    def run(self) -> object:
        """Run the command with these options."""
