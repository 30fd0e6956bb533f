"""Data sets as they are published, at small scale, for tests: videos whose pixels tell where and when they are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.written import write_video

WIDTH, HEIGHT = 160, 120
STEP = 4
"""Blue of a frame is its number times this."""


def coded_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a picture whose red grows with x, green with y, and whose blue is the number of the frame."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.full_like(x, number * STEP)], 2).astype(np.uint8)


def coded_video(path: Path, frames: int = 50, width: int = WIDTH, height: int = HEIGHT, fps: float = 25) -> Path:
    """Write such frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, [coded_frame(number, width, height) for number in range(frames)], fps)


def seen(picture: np.ndarray) -> tuple[float, float, float]:
    """Return where the middle of a crop is, as shares of width and height, and which frame it is of."""
    red, green, blue = picture.reshape(-1, 3).mean(0)
    return float(red / 255), float(green / 255), float(blue / STEP)


def box_file(path: Path, person: str, boxes: list[tuple[int, float, float, float, float]]) -> Path:
    """Write an utterance of VoxCeleb: six lines about it, then frame, x, y, width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = [f"Identity  : \t{person}", "Reference : \tvideo", "Offset    : \t-1", "FV Conf   : \t16.6\t(1)"]
    lines = [*head, "ASD Conf  : \t4.4", "", "FRAME \tX \tY \tW \tH "]
    lines += ["\t".join(f"{value} " for value in (f"{box[0]:06d}", *box[1:])) for box in boxes]
    path.write_text("\n".join(lines) + "\n")
    return path


def voxceleb_cropped(root: Path) -> Path:
    """Write the crop of video-preprocessing: mp4 files, and one clip as a folder of pictures."""
    coded_video(root / "train/id00012#abc#000010#000030.mp4", 20, 64, 64)
    coded_video(root / "train/id00012#abc#000100#000120.mp4", 20, 64, 64)
    coded_video(root / "train/id00015#xyz#000000#000020.mp4", 20, 64, 64)
    coded_video(root / "test/id10270#tst#000000#000020.mp4", 20, 64, 64)
    folder = root / "test/id10271#png#000000#000012.mp4"  # the folder has the name of the video
    folder.mkdir(parents=True)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:07d}.png"), coded_frame(number, 64, 64)[..., ::-1])
    return root


def hdtf(root: Path) -> Path:
    """Write the text files of HDTF with their oddities, and whole videos of other sizes and lengths."""
    lists = root / "HDTF_dataset"
    lists.mkdir(parents=True)
    address = "https://www.youtube.com/watch?v=x"
    files = {
        "RD_video_url": f"Radio1 {address}\nRadio2 {address}\n",
        "RD_resolution": "Radio1.mp4 120\nRadio2.mp4 120\n",
        "RD_annotion_time": "Radio1.mp4 00:00-00:01 00:01-00:02\nRadio2.mp4 00:00-00:02 \n",
        "RD_crop_wh": "Radio1_0.mp4 40 60 20 60\nRadio1_1.mp4 0 60 60 60\nRadio2_0.mp4 40 60 20 60\n",
        "WDA_video_url": f"\ufeffAnnLee0 {address}\nAnnLee1 {address}\nGone {address}\n",
        "WDA_resolution": "AnnLee0.mp4 240\nAnnLee1.mp4 120 \nGone.mp4 120\n",
        "WDA_annotion_time": "AnnLee0.mp4 00:00-00:01 \nAnnLee1.mp4 00:00.5-00:01 00:08-00:07\nGone.mp4 00:00-00:01\n",
        "WDA_crop_wh": "AnnLee0_0.mp4 160 120 0 120\nAnnLee1_0.mp4 80 60 0 60\nAnnLee1_1.mp4 0 60 0 60\n",
        "WRA_video_url": f"BobRay {address}\n",
        "WRA_resolution": "BobRay.mp4 120\n",
        "WRA_annotion_time": "BobRay.mp4 00:00-00:01 00:01-00:02\n",
        "WRA_crop_wh": "BobRay_0.mp4 0 60 0 60\n",
    }
    for part in ("RD", "WDA", "WRA"):
        files[f"{part}_crop_ratio"] = ""
    for name, text in files.items():
        (lists / f"{name}.txt").write_text(text, encoding="utf-8")
    for name in ("Radio1", "Radio2", "AnnLee0", "AnnLee1", "BobRay"):
        coded_video(root / f"videos/{name}.mp4", 50)
    return root


def celebv(root: Path) -> Path:
    """Write frames by person."""
    for person in ("Ann", "Bob"):
        (root / person / "Image").mkdir(parents=True)
        for number in range(12):
            cv2.imwrite(str(root / person / f"Image/{number}.jpg"), coded_frame(number, 64, 64)[..., ::-1])
    return root
