"""CelebV: frames of five people in interviews and speeches, used for testing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sfdkit.data.module import FramesDataModule
from sfdkit.data.pack.layout import DataSet, Found, VideoSegment, no_layout, require_root
from sfdkit.data.pack.sources import Skip
from sfdkit.media.picture import PICTURE_SUFFIXES

LAYOUTS = ("<person>/Image/<frame>.jpg: a folder for each of the people, https://github.com/wywu/ReenactGAN",)


def find(root: Path) -> Found:
    """Find the people of CelebV; all of them are for testing.

    Raises:
        DataError: No folder below the root holds Image/ with pictures.
    """
    require_root(root)
    segments, skips = [], []
    for folder in sorted(path / "Image" for path in root.iterdir() if (path / "Image").is_dir()):
        person = folder.parent.name
        if any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir()):
            segments.append(VideoSegment(folder, f"{person}/Image", person, "test"))
        else:
            skips.append(Skip(f"{person}/Image", "unreadable", "the folder holds no picture"))
    if not segments:
        raise no_layout(root, "CelebV", LAYOUTS)
    return Found("frames of CelebV by person", segments, skips, "none")


DATASET = DataSet(
    name="celebv",
    title="CelebV",
    address="https://github.com/wywu/ReenactGAN",
    licence="for research (see its page; the videos belong to their owners)",
    citation="Wu, Zhang, Li, Qian, Loy: ReenactGAN: Learning to reenact faces via boundary transfer. ECCV 2018",
    resolution=256,
    fps=25.0,
    layouts=LAYOUTS,
    find=find,
)


class CelebVDataModule(FramesDataModule):
    """Shards of ``sfdkit prepare celebv``; shards of other data sets are refused."""

    dataset: ClassVar[str | None] = DATASET.name
