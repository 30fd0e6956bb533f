"""Converting frames of high dynamic range or of a wide gamut to BT.709.

Signals become light by the transfer functions of Recommendation ITU-R BT.2100 (https://www.itu.int/rec/R-REC-BT.2100),
with the reference white of Report BT.2408 (https://www.itu.int/pub/R-REP-BT.2408): 75 % of HLG, 203 cd/m2 of PQ. HLG is
shown with a system gamma of 1, which is that of a screen of about 330 cd/m2. What is brighter than white is rolled off.
"""

from __future__ import annotations

from functools import cache

import av
import cv2
import numpy as np

_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273, table 3
_BT709 = 1  # primaries, ITU-T H.273, table 2; where nothing is said, high dynamic range has those of BT.2020
_GAMMA = 2.2  # between the 2.4 of BT.1886 and sRGB
_LEVELS = 65536
_KNEE = 0.8  # light, in parts of white, up to which nothing is changed

# From a gamut to BT.709, linear: Report ITU-R BT.2407 for BT.2020, SMPTE EG 432-1 for P3 with the white of D65. By the
# number of the primaries in ITU-T H.273, table 2.
_TO_709 = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    12: ((1.2249, -0.2247, -0.0002), (-0.0420, 1.0419, 0.0001), (-0.0197, -0.0786, 1.0983)),
}


def to_rgb(frame: av.VideoFrame, transfer: int, primaries: int) -> np.ndarray:
    """Return a frame as H W 3 uint8 RGB with the primaries and the range of BT.709.

    Args:
        frame: As decoded; it holds its own matrix and range.
        transfer: Number of its transfer characteristics in ITU-T H.273, table 3.
        primaries: Number of its primaries in ITU-T H.273, table 2.
    """
    hdr = transfer in (_PQ, _HLG)
    if not hdr and primaries not in _TO_709:
        return frame.to_ndarray(format="rgb24")
    signal: np.ndarray = frame.to_ndarray(format="rgb48le")
    light = np.take(_light(transfer), signal)
    if primaries != _BT709:
        light = cv2.transform(light, np.array(_TO_709.get(primaries, _TO_709[9]), np.float32))
    if hdr:
        peak = light.max(-1)
        light *= (_roll_off(peak) / np.maximum(peak, 1e-6))[..., None]
    return np.rint(255 * cv2.pow(light.clip(0.0, 1.0), 1 / _GAMMA)).astype(np.uint8)


@cache
def _light(transfer: int) -> np.ndarray:
    """Return the light of each of 65,536 levels, float32, where white is 1."""
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == _PQ:
        power = signal ** (32 / 2523)
        nits = 10000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
        return (nits / 203).astype(np.float32)
    if transfer == _HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        return (scene / scene[round(0.75 * (_LEVELS - 1))]).astype(np.float32)
    return (signal**_GAMMA).astype(np.float32)


def _roll_off(light: np.ndarray) -> np.ndarray:
    """Compress light above the knee into the range up to 1 by Reinhard's curve."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.minimum(light, _KNEE) + (1 - _KNEE) * above / (1 + above)
