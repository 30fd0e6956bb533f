"""A data set of one's own: a folder of videos, packed into shards, and a training of a few steps on them.

python own_dataset.py --videos VIDEOS --crop face --steps 200 --output runs/own_dataset

Without --videos some puppets are filmed first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train import PIXELS, animator, part, train

from sfdkit.data.module import FramesDataModule
from sfdkit.data.pack.commands import PackVideos
from sfdkit.puppets.commands import render_file


class OwnDataModule(FramesDataModule):
    """Reads shards of this data set alone."""

    dataset = "own"


def film(folder: Path, people: int = 4) -> Path:
    """Write a video of each of some puppets."""
    folder.mkdir(parents=True, exist_ok=True)
    for person in range(people):
        render_file(str(folder / f"person{person}.mp4"), person, person, "train", resolution=96, frames=12, fps=5)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--crop", default="centre")  # of puppets; face for videos of people
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("runs/own_dataset"))
    given = parser.parse_args()

    videos, shards = given.videos or film(given.output / "videos"), given.output / "shards"
    PackVideos(
        root=str(videos),
        output=str(shards),
        dataset="own",
        licence="unknown",  # say which: it stays with each clip
        crop=given.crop,
        resolution=PIXELS,
        validation_share=0.0,
        test_share=0.0,
    ).run()
    data = OwnDataModule(str(shards), PIXELS, batch_size=4, driving_per_source=2, rows_per_clip=4, num_workers=0)
    encoder = part("sfdkit.model.encoders.TimmEncoder", name="test_resnet", resolution=PIXELS, max_stride=16)
    print(train(animator(encoder), data, given.steps, given.output))
