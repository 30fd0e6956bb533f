"""The command line's parser: errors of one line, no shortened options, help without markup."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from sfdkit.config.command import Command
from sfdkit.config.help import PlainHelp
from sfdkit.config.messages import explain


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line, with the nearest names, and that takes no shortened option for another."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", PlainHelp)
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("prog", "sfdkit")
        super().__init__(*args, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option; an argument with a keyword's name and an underscore, ``from_``, becomes ``--from``."""
        if args and str(args[0]).startswith("--") and args[0].endswith("_"):
            option = args[0].rstrip("_")
            args, kwargs = (option, *args[1:]), {"dest": args[0][2:], "metavar": option[2:].upper(), **kwargs}
        return super().add_argument(*args, **kwargs)

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Add the options of a command, by their names or, where it wants that, by their place."""
        if issubclass(theclass, Command) and theclass.positional:
            kwargs["as_positional"] = True
        return super().add_class_arguments(theclass, *args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"a file of the command line is no text in UTF-8 ({error.reason}, byte {error.start})", error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what is wrong, and leave with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"sfdkit: error: {explain(message, parser)}", file=sys.stderr)
        sys.exit(2)
