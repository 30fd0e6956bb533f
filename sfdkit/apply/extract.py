"""From a driving clip to a motion track.

Legend: ``M`` motion coefficients.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from sfdkit.apply.animate import read_motion, require_positive
from sfdkit.apply.frame_source import open_driver
from sfdkit.apply.motion_track import FLOAT_BITS, MotionTrack, motion_fingerprint, quantise, rate_line
from sfdkit.checkpoint import load_animator
from sfdkit.device import choose_device
from sfdkit.errors import DataError
from sfdkit.files import require_apart
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.media.picture import list_pictures
from sfdkit.tensor_file import check_suffix


def extract(
    checkpoint: str,
    driving: str,
    output: str,
    bits: int = FLOAT_BITS,
    crop: CropMethod = "face",
    margin: float | None = None,
    detector: str = OPENCV,
    batch_size: int = 8,
    fps: float | None = None,
    device: str = "auto",
    trust: list[str] | None = None,
) -> MotionTrack:
    """Read the motion of a clip into a file, from which sfdkit animate --motion moves any face.

    The file holds M numbers per frame, and prints what they need per second. Frames are decoded and read batch by
    batch: memory grows with the clip by its coefficients alone.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote; the track is of use to this one only.
        driving: A video, a folder of pictures in the order of their names, or one picture.
        output: The track, a .safetensors file.
        bits: Bits per coefficient: 32 keeps floats, 2 to 8 rounds between each one's smallest and largest value.
        crop: How to cut the face out, as in the training data: face, union or aligned (detected), centre (largest
            square) or none (the whole picture).
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        batch_size: Frames per step.
        fps: Frames per second of the track. A video is resampled in time and keeps its length; the pictures of a folder
            are taken to be that far apart. The clip's own rate by default, 25 for a folder.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].

    Returns:
        The track that was written.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of another model.
        ConfigError: A number that cannot work, or an output with another suffix.
        DataError: The clip cannot be read, no face was found, or the output cannot be written.
    """
    require_positive("batch_size", batch_size)
    if bits != FLOAT_BITS:
        quantise(torch.zeros(1, 1), bits)  # refuses what cannot work before any work is done
    require_apart(output, checkpoint=checkpoint, driving=driving)
    target = check_suffix(output, "output")
    animator = load_animator(checkpoint, choose_device(device), trust or ()).animator
    driver = open_driver(driving, animator.resolution, CropRule.of_user(crop, margin, detector), fps)
    rows = []
    with tqdm(total=driver.frames or None, desc="extract", unit="frame") as bar:
        for _, motion in read_motion(animator, driver, batch_size):
            rows.append(motion.cpu())
            bar.update(len(motion))
    if not rows:
        raise DataError(f"{driving} holds no frame: give another clip")
    track = MotionTrack(torch.cat(rows), driver.fps, motion_fingerprint(animator), driver.path.name).rounded(bits)
    track.save(target)
    print(f"wrote {target}: {len(track.motion)} frames, {len(track.motion) / track.fps:.2f} s at {track.fps:g} fps")
    print(rate_line(track, _size(driver.path)))
    return track


def _size(path: Path) -> int:
    files = list_pictures(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
