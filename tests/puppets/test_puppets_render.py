import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sfdkit.puppets.factors import IdentityFactors, MotionFactors, sample_identity, sample_motion
from sfdkit.puppets.landmarks import LANDMARKS
from sfdkit.puppets.render import Rendered, render


def still(**changes: float) -> MotionFactors:
    values = {name: 0.0 for name in MotionFactors.names()} | {"scale": 1.0}
    return MotionFactors.from_values(values | changes)


def person(index: int = 4, **changes: float) -> IdentityFactors:
    return IdentityFactors.from_values(sample_identity(index, "test", 0).row(0) | changes)


def point(rendered: Rendered, name: str) -> torch.Tensor:
    return rendered.landmarks[:, LANDMARKS.index(name)]


def box(rendered: Rendered, names: tuple[str, ...], margin: int) -> tuple[slice, slice]:
    points = torch.stack([point(rendered, name)[0] for name in names])
    (x0, y0), (x1, y1) = points.amin(0).tolist(), points.amax(0).tolist()
    return slice(int(y0) - margin, int(y1) + margin + 1), slice(int(x0) - margin, int(x1) + margin + 1)


def change_outside(first: Rendered, second: Rendered, windows: list[tuple[slice, slice]]) -> float:
    difference = (first.image - second.image).abs().amax(1)[0]
    for rows, columns in windows:
        difference[rows, columns] = 0
    return float(difference.max())


def test_the_face_turns_and_shifts_with_the_head() -> None:
    middle = point(render(person(), still(), 128), "nose_tip")
    for changes, axis, sign in (
        ({"yaw": 30}, 0, 1), ({"yaw": -30}, 0, -1), ({"pitch": 18}, 1, -1), ({"pitch": -18}, 1, 1),
    ):  # fmt: skip
        moved = point(render(person(), still(**changes), 128), "nose_tip")
        assert sign * float((moved - middle)[0, axis]) > 8, changes
    moved = point(render(person(), still(shift_x=0.1, shift_y=-0.1), 128), "nose_tip")
    assert torch.allclose(moved - middle, torch.tensor([[12.8, 12.8]]), atol=1e-3)
    rolled = render(person(), still(roll=15), 128)
    assert point(rolled, "right_iris")[0, 1] < point(rolled, "left_iris")[0, 1] - 3


@pytest.mark.parametrize(
    ("changes", "high", "low", "wider"),
    [
        ({"mouth_open": 1.0}, "lip_upper_inner", "lip_lower_inner", 15),
        ({"mouth_open": 1.0}, "nose_tip", "chin", 6),
        ({"blink": 1.0}, "left_eye_upper", "left_eye_lower", -8),
        ({"smile": 1.0}, "right_mouth_corner", "chin", 3),
        ({"brows": 1.0}, "left_brow_middle", "left_eye_lower", 4),
        ({"gaze_y": -1.0}, "right_brow_middle", "right_iris", 2),
    ],
)
def test_landmarks_follow_the_expression(changes: dict[str, float], high: str, low: str, wider: float) -> None:
    spans = []
    for motion in (still(), still(**changes)):
        rendered = render(person(), motion, 256)
        spans.append(float(point(rendered, low)[0, 1] - point(rendered, high)[0, 1]))
    assert (spans[1] - spans[0]) * np.sign(wider) > abs(wider)


def test_landmarks_lie_on_what_they_name() -> None:
    rendered = render(person(0, skin_tone=0.0, glasses=0.0, fringe=0.0), still(gaze_x=0.6, yaw=12, mouth_open=1.0), 256)
    picture = rendered.image[0]
    for side in ("left", "right"):
        x, y = point(rendered, f"{side}_iris")[0].round().int().tolist()
        assert picture[:, y, x].max() < 0.25, "the pupil is black"
    upper, lower = (point(rendered, f"lip_{name}_inner")[0] for name in ("upper", "lower"))
    x, y = (upper + 0.55 * (lower - upper)).round().int().tolist()
    assert picture[:, y, x].mean() < 0.3, "the open mouth is dark"
    x, y = point(rendered, "chin")[0].round().int().tolist()
    assert rendered.mask[0, 0, y - 4, x] > 0.9 and rendered.mask[0, 0, y + 8, x] < 0.1


def test_blink_and_gaze_change_the_eyes_only() -> None:
    names = tuple(f"eye_{name}" for name in ("outer", "inner", "upper", "lower"))
    open_eyes = render(person(), still(yaw=15), 128)
    windows = [box(open_eyes, tuple(f"{side}_{name}" for name in names), 5) for side in ("left", "right")]
    for changes in ({"blink": 1.0}, {"gaze_x": 1.0}, {"gaze_y": -1.0}):
        changed = render(person(), still(yaw=15, **changes), 128)
        assert change_outside(open_eyes, changed, windows) < 0.02, changes
        assert change_outside(open_eyes, changed, []) > 0.4, changes


@pytest.mark.parametrize(
    "changes", [{"blink": 1.0}, {"gaze_x": 1.0}, {"mouth_open": 1.0}, {"smile": 1.0}, {"brows": 1.0}]
)
def test_expressions_are_visible_at_64_pixels(changes: dict[str, float]) -> None:
    for index in range(6):
        first, second = (render(person(index, fringe=0.0), motion, 64) for motion in (still(), still(**changes)))
        assert ((first.image - second.image).abs().amax(1) > 0.08).sum() >= 12, index


def test_every_identity_factor_shows() -> None:
    base = person(
        4, beard=0.6, moustache=0.6, glasses=1.0, hair_volume=0.6, hair_length=0.2, fringe=0.0, hair_grey=0.0, age=0.5
    )  # fmt: skip
    names = IdentityFactors.names()
    rows = [{**base.row(0), name: 0.15} for name in names] + [{**base.row(0), name: 0.95} for name in names]
    motions = still(yaw=20, mouth_open=0.2).expand(2 * len(names))
    images = render(IdentityFactors.concat([IdentityFactors.from_values(row) for row in rows]), motions, 64).image
    for k, name in enumerate(names):
        assert (images[k] - images[k + len(names)]).abs().max() > 0.03, name


def test_all_resolutions_show_the_same_picture() -> None:
    identity = IdentityFactors.concat([sample_identity(k, "test", 0) for k in range(6)])
    motion = sample_motion(0, "test", 0, 6)
    small, large = render(identity, motion, 64), render(identity, motion, 256)
    error = (F.avg_pool2d(large.image, 4) - small.image).abs()
    assert error.mean() < 0.01 and error.square().mean() < 0.001
    assert (F.avg_pool2d(large.mask, 4) - small.mask).abs().mean() < 0.01
    assert torch.allclose((large.landmarks + 0.5) / 4 - 0.5, small.landmarks, atol=1e-3)
    for resolution in (32, 50):
        assert render(identity[0], motion[0], resolution).image.shape == (1, 3, resolution, resolution)


def test_the_window_of_the_head_cuts_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = IdentityFactors.from_values({name: 1.0 for name in IdentityFactors.names()})
    poses = [still(yaw=y, pitch=p, roll=20, scale=1.15, mouth_open=1) for y in (-35, 0, 35) for p in (-20, 20)]
    drawn = [(sample_identity(k, "train", 5), sample_motion(k, "train", 5, 1)) for k in range(12)]
    pairs = [*drawn, *((everything, pose) for pose in poses)]
    windowed = [render(who, what, 48) for who, what in pairs]
    monkeypatch.setattr("sfdkit.puppets.render._head_window", lambda pose, face, i, side: (slice(0, side),) * 2)
    for (who, what), seen in zip(pairs, windowed, strict=True):
        whole = render(who, what, 48)
        assert torch.allclose(whole.image, seen.image, atol=1e-4)
        assert torch.allclose(whole.mask, seen.mask, atol=1e-4)


def test_edges_are_soft() -> None:
    mask = render(person(6, hair_volume=0.0), still(roll=10), 64, supersample=1).mask
    between = ((mask > 0.02) & (mask < 0.98)).sum()
    assert 40 < between < 400, "an outline about a pixel wide"


def test_face_fills_the_picture_but_stays_inside() -> None:
    identity = IdentityFactors.concat([sample_identity(k, "train", 0) for k in range(24)])
    identity = dataclasses.replace(identity, hair_volume=torch.zeros(24))
    rendered = render(identity, still(), 64)
    assert rendered.image.min() >= 0 and rendered.image.max() <= 1 and rendered.image.isfinite().all()
    rows = (rendered.mask[:, 0].amax(2) > 0.5).sum(1) / 64
    assert rows.min() > 0.5 and rows.max() < 0.85
    border = torch.cat(
        [rendered.mask[..., 0, :], rendered.mask[..., -1, :], rendered.mask[..., 0], rendered.mask[..., -1]]
    )
    assert border.max() == 0


def test_identities_differ_more_than_a_glance_can_miss() -> None:
    identity = IdentityFactors.concat([sample_identity(k, "test", 0) for k in range(16)])
    images = render(identity, still(), 32).image.flatten(1)
    distance = torch.cdist(images, images) / images.shape[1] ** 0.5
    assert distance[~torch.eye(16, dtype=torch.bool)].min() > 0.05


def test_rows_must_fit() -> None:
    with pytest.raises(ValueError, match="cannot become 3"):
        render(person().expand(2), sample_motion(0, "test", 0, 3), 32)
    with pytest.raises(ValueError, match="resolution"):
        render(person(), still(), 0)
