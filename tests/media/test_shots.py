"""Cuts, and the faces of each shot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sfdkit.errors import DataError, SfdkitWarning
from sfdkit.media import shots as module
from sfdkit.media.box import Box
from sfdkit.media.crop import CropRule, Place
from sfdkit.media.detect import Face
from sfdkit.media.framing import Follow, frame_shots, tell
from sfdkit.media.shots import CutFinder, Shot, find_shots

Where = Callable[[int], list[tuple[float, ...]]]
"""Frame number to left, top and size of its faces, and their score."""

RULE = CropRule("face", 0.25)


def face_at(left: float, top: float, size: float, score: float = 1.0) -> Face:
    return Face(Box(left, top, left + size, top + size), score)


def shots_of(monkeypatch: pytest.MonkeyPatch, where: Where, count: int, cuts: tuple[int, ...] = ()) -> list[Shot]:
    """Find the shots of a clip of 25 frames a second whose faces are known; after each cut its grey is another."""
    greys = [40 + 150 * (sum(number >= cut for cut in cuts) % 2) for number in range(count)]
    numbers = iter(range(count))
    now = [0]

    def frames() -> object:
        for number in numbers:
            now[0] = number
            yield np.full((200, 300, 3), greys[number], np.uint8)

    class Detector:
        name = "known"

        def __call__(self, image: np.ndarray, near: Box | None = None) -> list[Face]:
            return [face_at(*face) for face in where(now[0])]

    monkeypatch.setattr(module, "open_detector", lambda what, eyes=False: Detector())
    return find_shots(frames(), 25.0, RULE, several=True)  # type: ignore[arg-type]


def test_cuts_are_found_and_motion_is_none() -> None:
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (4, 10, 3), np.uint8).repeat(100, 0).repeat(100, 1) for _ in range(3)]
    is_cut = CutFinder()
    found = []
    for number in range(90):
        at = 6 * (number % 30)  # the camera moves by six pixels a frame
        if is_cut(scenes[number // 30][:, at : at + 600]):
            found.append(number)
    assert found == [30, 60]


def test_noise_that_moves_is_no_cut_and_a_flash_is_no_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 800, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    is_cut = CutFinder()
    assert not any([is_cut(noise[:, at : at + 600]) for at in [0] * 30 + list(range(0, 2400, 40))])
    face: Where = lambda number: [(60.0, 60.0, 50.0)]  # noqa: E731
    assert [shot.first for shot in shots_of(monkeypatch, face, 60, (30, 31))] == [0, 30]


def test_faces_are_numbered_from_the_left_in_each_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    def where(number: int) -> list[tuple[float, ...]]:
        chance = [(250.0, 5.0, 12.0)] if number == 8 else []  # what a detector sees once is no face
        if number < 30:
            return [(200.0 + number, 50.0, 40.0), (30.0, 60.0, 50.0), *chance]
        return [(100.0, 60.0, 60.0)]

    first, second = shots_of(monkeypatch, where, 50, (30,))
    assert (first.first, first.stop, second.first, second.stop) == (0, 30, 30, 50)
    assert [round(track.left) for track in first.tracks] == [30, 200]
    assert [track.size for track in second.tracks] == [60]
    assert [track.size for track in first.main_tracks()] == [50]


def test_a_still_square_holds_the_face_and_a_following_one_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def where(number: int) -> list[tuple[float, ...]]:
        x, y, size = rng.normal(0, 2, 3)  # a detector trembles
        return [(60.0 + number + x, 60.0 + y, 50.0 + size)]

    shots = shots_of(monkeypatch, where, 80)
    places: dict[Follow, list[Place]] = {}
    for how in ("shot", "head"):
        framing = frame_shots(shots, [shots[0].tracks], 25.0, RULE, how)
        places[how] = [place for n in range(80) if (place := framing.at(n)) is not None]
    assert len(set(places["shot"])) == 1
    still = places["shot"][0].box
    assert still.x0 < 60 and still.x1 > 60 + 80 + 50
    sides = [place.box.x1 - place.box.x0 for place in places["head"]]
    middles = np.array([(place.box.x0 + place.box.x1) / 2 for place in places["head"]])
    assert len(places["head"]) == 80 and np.ptp(sides) == 0 and sides[0] < still.x1 - still.x0
    assert all(float(value).is_integer() for place in places["head"] for value in place.box)
    assert np.abs(middles[15:-15] - (60 + 25 + np.arange(15, 65))).max() < 4
    assert np.abs(np.diff(middles)).max() <= 2  # about one pixel a frame, in whole pixels


def test_where_a_face_is_gone_is_known_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def where(number: int) -> list[tuple[float, ...]]:
        return [] if 40 <= number < 80 or number in (8, 24) else [(60.0, 60.0, 50.0)]

    shots = shots_of(monkeypatch, where, 100)
    framing = frame_shots(shots, [shots[0].tracks], 25.0, RULE)
    seen = [framing.at(n) is not None for n in range(100)]
    assert seen == [not 33 <= n < 80 for n in range(100)]  # from the frame after the last find on
    with pytest.warns(SfdkitWarning, match=r"clip\.mp4 shows no face from 1\.32 to 3\.20 s: it is held"):
        tell(framing, 100, 25.0, "clip.mp4", "it is held")


def test_a_face_that_leaves_and_returns_elsewhere_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def where(number: int) -> list[tuple[float, ...]]:
        return [] if 40 <= number < 50 else [(20.0, 60.0, 40.0)] if number < 40 else [(230.0, 60.0, 40.0)]

    shots = shots_of(monkeypatch, where, 100)
    framing = frame_shots(shots, [shots[0].main_tracks()], 25.0, RULE)
    places = [framing.at(n) for n in range(100)]
    assert all(place is not None for place in places)
    lefts = [place.box.x0 for place in places if place is not None]
    assert max(lefts[:40]) < 60 and min(lefts[56:]) > 180


def test_a_face_that_walks_is_held_by_a_large_square_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = shots_of(monkeypatch, lambda number: [(10.0 + number, 60.0, 40.0)], 200)
    framing = frame_shots(shots, [shots[0].main_tracks()], 25.0, RULE)
    place = framing.at(0)
    assert place is not None and place.box.x0 <= 10 and place.box.x1 >= 10 + 192 + 40  # where it was found last
    with pytest.warns(SfdkitWarning, match=r"the face of a\.mp4 moves far: .* --follow head goes with it"):
        tell(framing, 200, 25.0, "a.mp4", "")


def test_what_a_detector_takes_for_a_face_for_a_moment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def where(number: int) -> list[tuple[float, ...]]:
        wall = [(10.0, 20.0, 60.0, 0.65)] if number <= 16 else []
        return [*wall, (180.0, 60.0, 50.0, 0.9)]

    (shot,) = shots_of(monkeypatch, where, 144)
    assert [track.size for track in shot.tracks] == [50]


def test_a_face_in_the_first_frames_only_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = shots_of(monkeypatch, lambda number: [(60.0, 60.0, 50.0)] if number < 10 else [], 200)
    framing = frame_shots(shots, [shots[0].tracks], 25.0, RULE)
    assert framing.first == 0 and framing.at(8) is not None and framing.at(100) is None


def test_no_face_and_no_frame_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = shots_of(monkeypatch, lambda number: [], 20)
    with pytest.raises(DataError, match="no face was found"):
        frame_shots(shots, [[]], 25.0, RULE)
    assert find_shots([], 25.0, RULE) == []
