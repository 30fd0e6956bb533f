from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from sfdkit.apply.axes import raw_step
from sfdkit.apply.face import change_identity, edit, interpolate, load_face, morph, recombine, render, save_face
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.types import Descriptors
from tests.written import lively_animator


def face(rows: int, seed: int) -> Descriptors:
    numbers = torch.Generator().manual_seed(seed)
    return Descriptors(torch.randn(rows, 12, generator=numbers), torch.randn(rows, 4, generator=numbers))


def layer(seed: int = 0, **options: object) -> DescriptorLayer:
    torch.manual_seed(seed)
    return DescriptorLayer(**{"identity_size": 12, "motion_size": 4, **options}).eval()  # type: ignore[arg-type]


def test_recombination_takes_each_part_from_its_face_and_repeats_a_single_row() -> None:
    a, b = face(1, 1), face(3, 2)
    mixed = recombine(a, b)
    assert mixed.motion.equal(b.motion) and mixed.identity.equal(a.identity.expand(3, 12))
    assert recombine(b, a).motion.equal(a.motion.expand(3, 4))
    with pytest.raises(ValueError, match="2 identities and 3 motions"):
        recombine(face(2, 1), b)


def test_interpolation_is_a_straight_line() -> None:
    a, b = face(2, 1), face(2, 2)
    for t in (-0.5, 0.0, 0.25, 1.0, 1.5):
        there = interpolate(a, b, t)
        for made, one, other in zip(there, a, b, strict=True):
            assert torch.allclose(made, (1 - t) * one + t * other, atol=1e-6)
    assert interpolate(a, b, 0.0).motion.equal(a.motion) and interpolate(a, b, 1.0).identity.equal(b.identity)


def test_interpolation_changes_what_was_asked_and_takes_a_share_per_row() -> None:
    a, b = face(1, 1), face(1, 2)
    shares = torch.tensor([0.0, 0.5, 1.0])
    moved = interpolate(a, b, shares, "motion")
    assert moved.identity.equal(a.identity.expand(3, 12))
    assert torch.allclose(moved.motion, torch.cat([a.motion, (a.motion + b.motion) / 2, b.motion]), atol=1e-6)
    person = interpolate(a, b, shares, "identity")
    assert person.motion.equal(a.motion.expand(3, 4)) and torch.allclose(person.identity[2:], b.identity)


def test_an_edit_adds_a_step() -> None:
    a = face(2, 1)
    moved = edit(a, raw_step("motion:2", 0.7, 12, 4))
    assert torch.allclose(moved.motion - a.motion, torch.tensor([0.0, 0.0, 0.7, 0.0]).expand(2, 4), atol=1e-6)
    assert moved.identity.equal(a.identity)
    steps = Descriptors(torch.zeros(3, 12), torch.eye(3, 4))
    assert torch.allclose(edit(face(1, 3), steps).motion - face(1, 3).motion, torch.eye(3, 4), atol=1e-6)


def test_a_latent_code_gives_its_coefficients_back() -> None:
    animator = lively_animator()
    with torch.no_grad():
        was = face(3, 5)
        now = animator.project(animator.recombine(*was))
    assert torch.allclose(now.identity, was.identity, atol=1e-5) and torch.allclose(now.motion, was.motion, atol=1e-5)


def test_rendering_uses_both_kinds_of_coefficients() -> None:
    animator = lively_animator(code_share=0.5)
    with torch.no_grad():
        state = animator.source_state(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
        own = state.descriptors
        plain = animator.generate(state, own.motion).image
        assert render(animator, state, own).image.equal(plain)
        driven = recombine(own, face(3, 2))
        assert torch.allclose(
            render(animator, state, driven).image, animator.generate(state.expand(3), driven.motion).image
        )
        other = Descriptors(own.identity + 1.0, own.motion)
        changed = change_identity(animator, state, other.identity)
        assert render(animator, state, other).image.equal(animator.generate(changed, own.motion).image)
        assert (render(animator, state, other).image - plain).abs().max() > 1e-2
        with pytest.raises(ConfigError, match="code_share is 0"):
            render(lively_animator(), state, other)


def test_another_identity_changes_the_source_once_and_leaves_its_motion() -> None:
    animator = lively_animator(code_share=0.5)
    with torch.no_grad():
        state = animator.source_state(torch.rand(2, 3, 32, 32))
        own = state.descriptors
        same = change_identity(animator, state, own.identity)
        assert torch.allclose(same.image, state.image, atol=1e-6)
        assert all(torch.allclose(*each, atol=1e-5) for each in zip(same.features, state.features, strict=True))
        identity = own.identity + torch.tensor([[0.0], [5.0]])
        changed = change_identity(animator, state, identity)
        assert torch.allclose(changed.image[0], state.image[0], atol=1e-6)
        assert (changed.image[1] - state.image[1]).abs().max() > 1e-3
        assert changed.descriptors.identity.equal(identity) and changed.descriptors.motion.equal(own.motion)
        assert changed.image.min() >= 0 and changed.image.max() <= 1


def test_a_morph_ends_as_the_other_person_in_the_first_ones_pose() -> None:
    animator = lively_animator(code_share=0.5)
    with torch.no_grad():
        state, other = (animator.source_state(torch.rand(1, 3, 32, 32)) for _ in range(2))
        made = morph(animator, state.expand(3), other.expand(3), torch.tensor([0.0, 0.5, 1.0]))
        moved = animator.generate(other, state.descriptors.motion).image
    assert torch.allclose(made.image[:1], state.image, atol=1e-6)
    assert torch.allclose(made.image[2:], moved.clamp(0, 1), atol=1e-6)
    middle = (made.image[1:2] - (state.image + moved) / 2).abs().mean()
    assert middle < 0.5 * (moved - state.image).abs().mean()
    identity, motion = made.descriptors
    assert torch.allclose(identity[1:2], (state.descriptors.identity + other.descriptors.identity) / 2, atol=1e-5)
    assert motion.equal(state.descriptors.motion.expand(3, -1))


def test_detail_stays_where_the_person_stays() -> None:
    animator = lively_animator(code_share=0.5)
    before, after = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.5)
    after[..., 16:18] = 1.0
    drawn = iter((before, after))
    source = (torch.rand(1, 3, 32, 32) * 0.2 + 0.3).clamp(0, 1)
    with torch.no_grad():
        state = animator.source_state(source)
        animator.generate = lambda *_: SimpleNamespace(image=next(drawn))  # type: ignore[method-assign, assignment]
        made = change_identity(animator, state, torch.zeros(1, 12)).image
    assert torch.allclose(made[..., :10], source[..., :10] + 0.1, atol=1e-6), "an even change keeps the detail"
    assert (made[..., 16:18] - 1.0).abs().max() < 0.01, "a line is drawn without it"


def test_a_file_gives_back_the_face_and_says_what_it_is(tmp_path: Path) -> None:
    descriptors, written = layer(), face(2, 1)
    save_face(tmp_path / "new" / "face.safetensors", written, descriptors)
    read = load_face(tmp_path / "new" / "face.safetensors", descriptors)
    assert read.identity.equal(written.identity) and read.motion.equal(written.motion)
    with safe_open(tmp_path / "new" / "face.safetensors", "pt") as file:
        assert file.metadata() == {
            "schema": "sfdkit.descriptors/1",
            "basis": basis_fingerprint(descriptors),
            "identity_size": "12",
            "motion_size": "4",
            "complete": "true",
            "orthogonal": "true",
        }
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["face.safetensors"]


def test_switches_of_the_layer_are_written(tmp_path: Path) -> None:
    free = layer(latent_size=20, orthogonal=False, identity_basis=False)
    save_face(tmp_path / "face.safetensors", Descriptors(torch.rand(1, 20), torch.rand(1, 4)), free)
    with safe_open(tmp_path / "face.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["complete"], about["orthogonal"], about["identity_size"]) == ("false", "false", "20")


def test_faces_of_another_model_are_refused(tmp_path: Path) -> None:
    save_face(tmp_path / "face.safetensors", face(1, 1), layer())
    with pytest.raises(CheckpointError, match=r"face\.safetensors holds descriptors of another model .*describe"):
        load_face(tmp_path / "face.safetensors", layer(1))


def test_faces_of_other_sizes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the shapes \[\(2, 12\), \(3, 4\)\], the descriptor layer needs"):
        save_face(tmp_path / "face.safetensors", Descriptors(torch.rand(2, 12), torch.rand(3, 4)), layer())
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_face(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"face: .*face\.pt has the suffix '\.pt'; use \.safetensors"):
        save_face(tmp_path / "face.pt", face(1, 1), layer())
    with pytest.raises(DataError, match=r"there is no file .*gone\.safetensors"):
        load_face(tmp_path / "gone.safetensors", layer())
    save_face(tmp_path / "face.safetensors", face(1, 1), layer())
    whole = (tmp_path / "face.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-9])
    with pytest.raises(DataError, match=r"cut\.safetensors is damaged or no \.safetensors file"):
        load_face(tmp_path / "cut.safetensors", layer())


def test_others_may_read_the_file_as_the_user_allows(tmp_path: Path) -> None:
    save_face(tmp_path / "face.safetensors", face(1, 1), layer())
    (tmp_path / "plain").touch()
    assert (tmp_path / "face.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_face_that_was_read_in_another_batch_is_the_same_person() -> None:
    animator = lively_animator()
    assert not animator.code_share
    state = animator.source_state(torch.rand(1, 3, 32, 32))
    own = state.descriptors
    render(animator, state, own._replace(identity=own.identity * (1 + 1e-5)))
    with pytest.raises(ConfigError, match="code_share"):
        render(animator, state, own._replace(identity=own.identity + 0.1))
