"""Landmarks of one face in pictures and videos, by networks in local files.

A detector finds the face, the landmark network reads its points. In a video the points of one frame say where to look
in the next, as MediaPipe does (https://arxiv.org/abs/1907.06724), and the detector is asked where they are lost.

Legend: ``H W`` of a picture, ``P`` points.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import LANDMARK_NET, LEVEL, DetectorConvention, LandmarkConvention, Place
from sfdkit.face_networks.known import read_convention, remedy_of
from sfdkit.face_networks.regions import back, cut, map_of_face, region_of_points
from sfdkit.face_networks.third_party import NetworkFile, landmarks_in_pixels, require_file
from sfdkit.media.detect import Face, YuNetDetector, main_face
from sfdkit.points import FACE5, FACE31

A = TypeVar("A", np.ndarray, torch.Tensor)
PRESENT = 0.5
"""Confidence from which a face counts as there."""
POINTS_68 = 68
"""Landmarks of iBUG."""
_CORNERS_68 = (36, 45)  # outer corners of the eyes among them
_DETECTOR_SIDE = 256  # pixels of the longer side to which smaller pictures are enlarged for the detector


class FaceLandmarks(NamedTuple):
    """The points of one face."""

    points: np.ndarray
    """P 2 or P 3, float32: x to the right, y down, in pixels of the picture, whole numbers at the middle of pixels; the
    third number is the depth in pixels, less is nearer."""
    confidence: float
    """0 to 1."""


class MainFaceDetector:
    """Finds the main face of a picture by YuNet in a local file.

    Args:
        path: The ONNX file.

    Raises:
        ConfigError: There is no such file, or it is another network.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_file("detector", self.path, (".onnx",))
        self.convention = read_convention("detector", self.path, DetectorConvention())
        self._detector = YuNetDetector(self.path)

    def find(self, image: np.ndarray) -> Face | None:
        """Return the largest face of a picture H W 3 uint8 RGB; small pictures are enlarged first.

        Raises:
            ConfigError: The network in the file is another one.
        """
        height, width = image.shape[:2]
        scale = max(1.0, _DETECTOR_SIDE / max(height, width))
        if scale > 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        face = main_face(self._detector(image), "largest", image.shape[1], image.shape[0])
        return face if face is None or scale == 1 else face.scaled(1 / scale)

    def five_points(self, face: Face) -> np.ndarray:
        """Return the points of a face that it found in the order of :data:`sfdkit.points.FACE5`: 5 2 float32."""
        assert face.points is not None
        return np.array([face.points[self.convention.face5[name]] for name in FACE5.names], np.float32)


class FivePointReader:
    """Reads eyes, tip of the nose and corners of the mouth by the detector alone.

    Args:
        detector: The ONNX file of YuNet.

    Raises:
        ConfigError: There is no such file, or it is another network.
    """

    names = FACE5.names

    def __init__(self, detector: str | Path) -> None:
        self.detector = MainFaceDetector(detector)

    def read(self, image: np.ndarray) -> FaceLandmarks | None:
        """Return the five points of the largest face in a picture H W 3 uint8 RGB, in the order of ``names``."""
        face = self.detector.find(image)
        return None if face is None else FaceLandmarks(self.detector.five_points(face), min(1.0, face.score))


class LandmarkReader:
    """Reads the landmarks of one face.

    Args:
        landmarks: The landmark network, .onnx or TorchScript; :mod:`sfdkit.face_networks.known` says which are known.
        detector: The ONNX file of YuNet, or what was opened from it.
        threads: For each run of an ONNX network; torch's number by default.

    Raises:
        ConfigError: A file is missing, damaged, or another network.
    """

    def __init__(
        self, landmarks: str | Path, detector: str | Path | MainFaceDetector, threads: int | None = None
    ) -> None:
        self.detector = detector if isinstance(detector, MainFaceDetector) else MainFaceDetector(detector)
        self.network = NetworkFile("landmarks", landmarks, LANDMARK_NET, threads=threads, cut=True)

    @property
    def convention(self) -> LandmarkConvention:
        """What the network sees and gives."""
        return self.network.convention

    def read(self, image: np.ndarray, previous: FaceLandmarks | None = None) -> FaceLandmarks | None:
        """Read the largest face, or the one of the last frame.

        Args:
            image: H W 3 uint8 RGB.
            previous: What was read in the last frame of the video; without it, and where the face is lost, the detector
                is asked.

        Returns:
            The points, or None where there is no face.

        Raises:
            ConfigError: A network cannot take the picture, or gives something else than points.
        """
        if previous is not None and self.convention.margin_again is not None:
            found = self._read_in(image, self._again(previous.points))
            if found.confidence >= PRESENT:
                return found
        face = self.detector.find(image)
        return None if face is None else self.read_face(image, face)

    def read_face(self, image: np.ndarray, face: Face) -> FaceLandmarks | None:
        """Read a detected face; None where the network sees none there."""
        to_input = map_of_face(self.convention, image, face, self.detector.five_points(face))
        found = self._read_in(image, to_input, min(1.0, face.score))
        if self.convention.margin_again is not None and found.confidence >= PRESENT:
            found = self._read_in(image, self._again(found.points), found.confidence)
        return found if found.confidence >= PRESENT else None

    def points_of_grey(self) -> torch.Tensor:
        """Return the points that the network sees in plain grey: 1 P 2 or 1 P 3, by which their number is known."""
        side = self.convention.size
        return landmarks_in_pixels(self.network, self.network(torch.full((1, 3, side, side), 0.5)))

    def face31(self, points: np.ndarray) -> np.ndarray:
        """Return P points in the order of :data:`sfdkit.points.FACE31`, 31 2; NaN for what is not there.

        Raises:
            ConfigError: It is not known which of the network's points is which.
        """
        places = self.convention.face31
        if not places:
            raise ConfigError(
                f"landmarks: it is not known which points of {self.network.path} are which; name them under face31 in "
                f"{self.network.path.name}.yaml beside it, or {remedy_of('landmarks', self.network.path)}"
            )
        nothing = np.full(2, np.nan, np.float32)
        return np.stack([_at(points, places[name])[:2] if name in places else nothing for name in FACE31.names])

    def _again(self, points: np.ndarray) -> np.ndarray:
        convention = self.convention
        assert convention.margin_again is not None
        eyes = tuple(_at(points, convention.face31[name]) for name in LEVEL) if convention.region == "level" else None
        region = region_of_points(points, convention.margin_again, eyes)  # type: ignore[arg-type]
        return region.to_input(convention.size)

    def _read_in(self, image: np.ndarray, to_input: np.ndarray, confidence: float = 1.0) -> FaceLandmarks:
        """Read what a map takes; the confidence is the one given where the network has none of its own."""
        convention = self.convention
        crop = torch.from_numpy(cut(image, to_input, convention.size)).permute(2, 0, 1)[None] / 255
        presence = [] if convention.presence is None else [convention.presence]
        values, *more = self.network.outputs(crop, (convention.result, *presence))
        points = landmarks_in_pixels(self.network, values)[0].numpy()
        if more:
            value = more[0].flatten()[0]
            confidence = float(value.sigmoid() if convention.presence_unit == "logit" else value)
        return FaceLandmarks(back(points, to_input), confidence)


def eye_corners(convention: LandmarkConvention, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the outer corners of the eyes among points P ...; None where it is not known which they are."""
    if set(LEVEL) <= set(convention.face31):
        left, right = (_at(points, convention.face31[name]) for name in LEVEL)
        return left, right
    return (points[_CORNERS_68[0]], points[_CORNERS_68[1]]) if len(points) == POINTS_68 else None


def _at(points: A, place: Place) -> A:
    return points[place].mean(0) if isinstance(place, list) else points[place]
