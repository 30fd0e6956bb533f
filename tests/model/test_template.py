from __future__ import annotations

import pytest
import torch

from sfdkit.errors import ConfigError
from sfdkit.model.template import FINEST_MAP, PICTURE_SIZE, Template
from tests.tiny import tiny_animator


def test_a_template_has_the_shapes_of_a_source() -> None:
    animator = tiny_animator(64, code_share=0.5)
    image = torch.rand(3, 3, 64, 64)
    source, drawn = animator.source_state(image), animator.code_state(torch.rand(3, 12))
    assert drawn.image.shape == source.image.shape and drawn.descriptors.motion.shape == (3, 4)
    assert [f.shape for f in drawn.features] == [f.shape for f in source.features]
    assert animator.generate(drawn.expand(2), torch.rand(6, 4)).image.shape == (6, 3, 64, 64)


def test_what_is_learned_stays_coarse() -> None:
    template = Template(256, (8, 16, 32, 64, 128), (8, 8, 8, 4, 2))
    image, maps = template(2)
    assert image.shape == (2, 3, 256, 256) and template.picture.shape == (3, PICTURE_SIZE, PICTURE_SIZE)
    assert [m.shape[1:] for m in maps] == [(8, 8, 8), (8, 16, 16), (8, 32, 32), (4, 64, 64), (2, 128, 128)]
    assert [m.shape[1] for m in template.maps] == [8, 16, FINEST_MAP]


def test_a_drawn_face_depends_on_its_descriptors_and_teaches_the_template() -> None:
    animator = tiny_animator(code_share=0.5)
    identity, motion = torch.rand(2, 12).requires_grad_(), torch.rand(2, 4).requires_grad_()
    assert animator.template is not None
    torch.nn.init.normal_(animator.template.maps[0])
    animator.generate(animator.code_state(identity), motion).image.square().sum().backward()
    learned = [identity, motion, animator.template.picture, *animator.template.maps]
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in learned)
    assert all(p.grad is None for p in (*animator.encoder.parameters(), *animator.adapter.parameters()))


def test_without_a_share_there_is_no_template_and_the_identity_head_pools() -> None:
    plain, both = tiny_animator().eval(), tiny_animator(code_share=0.5).eval()
    added = set(both.state_dict()) - set(plain.state_dict())
    assert {name.split(".")[0] for name in added} == {"template", "identity_head"}
    assert set(plain.state_dict()) <= set(both.state_dict())
    features = plain.encoder(torch.rand(2, 3, 32, 32))
    mirrored = [f.flip(3) for f in features]
    assert torch.allclose(plain.identity_head(features), plain.identity_head(mirrored), atol=1e-4)
    assert not torch.allclose(both.identity_head(features), both.identity_head(mirrored), atol=1e-2)
    with pytest.raises(ConfigError, match=r"code_share is 0.*for example 0\.05"):
        plain.code_state(torch.rand(1, 12))
