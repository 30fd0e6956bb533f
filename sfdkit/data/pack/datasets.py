"""The published data sets that ``sfdkit prepare`` knows: those that installed packages declare.

A package declares one by an entry point (https://packaging.python.org/specifications/entry-points/) of the group
``sfdkit.datasets`` that names a :class:`~sfdkit.data.pack.layout.DataSet`::

    [project.entry-points."sfdkit.datasets"]
    mine = "my_package.my_module:DATASET"

``sfdkit prepare mine`` then packs it. The kit's own are in ``datamodules/``.
"""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoint, entry_points

from sfdkit.data.pack.layout import DataSet
from sfdkit.errors import ConfigError, SfdkitWarning

GROUP = "sfdkit.datasets"
CLIPS = "clips"
"""``sfdkit prepare clips`` packs any folder of videos, so no data set has this name."""


def data_sets() -> dict[str, DataSet]:
    """Return the data sets of all installed packages by the names of their entry points.

    One that cannot be used is left out with a warning, so that a broken package does not keep others from working.
    """
    found: dict[str, DataSet] = {}
    for entry in entry_points(group=GROUP):
        try:
            if entry.name in (*found, CLIPS):
                raise ConfigError("another one has this name")
            found[entry.name] = _load(entry)
        except Exception as error:  # whatever another package's code raises
            package = entry.dist.name if entry.dist else "of nowhere"
            text = " ".join(f"{type(error).__name__}: {error}".split())
            warnings.warn(
                f"the data set {entry.name!r} of the package {package!r} is left out, as {entry.value} cannot be used "
                f"({text}): repair or uninstall the package",
                SfdkitWarning,
                stacklevel=2,
            )
    return dict(sorted(found.items()))


def _load(entry: EntryPoint) -> DataSet:
    data = entry.load()
    if not isinstance(data, DataSet):
        raise ConfigError(f"it is a {type(data).__name__} and no sfdkit.data.pack.layout.DataSet")
    return data
