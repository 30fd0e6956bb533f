"""Turning errors that a configuration causes into one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sfdkit.errors import ConfigError, SfdkitError

_NO_DEVICE = re.compile(r"backend found|can not run on your system|torch_xla|accelerator.* not available")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise errors of the kit as they are, and those that Lightning raises itself as a :class:`ConfigError`.

    Raises:
        SfdkitError: An error of the kit, without the parser's message around it, which repeats all values of the part
            and with them a secret that was refused.
        ConfigError: An error of Lightning, a missing package, or a file that cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and not _by_lightning(error):
            raise
        raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        refused = _refused(error)
        if refused is error:
            raise
        if refused is not None:
            raise refused from None
        missing = next((e for e in _chain(error) if isinstance(e, ImportError) and "pip install" in str(e)), None)
        if missing is not None or _by_lightning(error):
            text = " ".join(str(missing or error).split())
            hint = "; --trainer.accelerator auto takes what there is" if _NO_DEVICE.search(text) else ""
            raise ConfigError(f"{text.removesuffix('!')}{hint}") from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException) -> SfdkitError | None:
    """Return the kit's own error among an error and its causes."""
    return next((e for e in _chain(error) if isinstance(e, SfdkitError)), None)


def _by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised an error, and not something that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("lightning.")
