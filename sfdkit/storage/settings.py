"""How a storage is reached: limits on attempts and waits, read-ahead, the local cache."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from sfdkit.storage.urls import refuse_credentials


@dataclass(frozen=True)
class StorageSettings:
    """Limits and switches of all transfers.

    Credentials are no settings: they come from the environment, see :mod:`sfdkit.storage`.

    Raises:
        ConfigError: The address of the server holds credentials.
    """

    attempts: PositiveInt = 6
    """Failures in a row, without a new byte between them, after which a transfer is given up."""
    first_wait: NonNegativeFloat = 0.25
    """Seconds before the second attempt; doubled each time, times a random factor from 0.5 to 1."""
    longest_wait: NonNegativeFloat = 20.0
    """Seconds, the most to wait between two attempts; a server's Retry-After is kept up to this too."""
    timeout: PositiveFloat = 30.0
    """Seconds without a byte after which a connection counts as broken; gs, az and hf have their drivers' own."""
    block_mb: PositiveFloat = 4.0
    """MB that one range request asks for. Each is read at full speed into memory, one for each lane, so that no server
    sees an idle connection."""
    read_ahead_mb: NonNegativeFloat = 32.0
    """MB of clips that each worker keeps ready, read in the background; 0 reads when asked. Local files need none."""
    cache: str | None = None
    """Folder for copies of whole shards; None streams without keeping anything."""
    cache_gb: PositiveFloat = 50.0
    """GB that the cache may hold; what was used least recently goes first."""
    endpoint: str | None = None
    """Address of an S3 server; by default ``AWS_ENDPOINT_URL``, else Amazon's."""
    allow_pipe: bool = False
    """Whether a root may be ``pipe:COMMAND``, which runs COMMAND in a shell, ``{}`` standing for the file's name."""

    def __post_init__(self) -> None:
        if self.endpoint:
            refuse_credentials(self.endpoint)
