"""Clips: your own videos, or those of any data set that ``sfdkit prepare clips`` or ``shards pack images`` reads."""

from __future__ import annotations

from sfdkit.data.module import FramesDataModule


class ClipsDataModule(FramesDataModule):
    """Shards of videos, under whatever data set's name they were packed.

    Layouts that pack without a script of their own:

    - VoxCeleb in the crop of the first order motion model, ``<person>#<video>#<start>#<end>.mp4``:
      ``--identity prefix`` (https://github.com/AliaksandrSiarohin/video-preprocessing).
    - A folder per person: ``--identity folder``.
    - HDTF and others whose file names do not tell the person: a csv for ``--identities``
      (https://github.com/MRzzm/HDTF, CC BY 4.0).
    """
