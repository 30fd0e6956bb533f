from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sfdkit.errors import ConfigError
from sfdkit.model.descriptors import DescriptorLayer, orthonormalise


def orthonormality_error(layer: DescriptorLayer) -> float:
    basis = layer.basis().detach()
    return float((basis.T @ basis - torch.eye(basis.shape[1])).abs().max())


def train_in_bfloat16(layer: DescriptorLayer, steps: int = 20) -> AveragedModel:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    average = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    target = torch.randn(8, layer.latent_size)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            identity, motion = torch.randn(8, layer.identity_size), torch.randn(8, layer.motion_size)
            latent = layer.combine(identity, motion)
            assert latent.dtype == torch.float32
            loss = (latent - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(layer)
    return average


@pytest.mark.parametrize("latent", [None, 64])
def test_basis_stays_orthonormal_through_bfloat16_training_and_averaging(latent: int | None) -> None:
    layer = DescriptorLayer(24, 8, latent)
    before = layer.weight.detach().clone()
    average = train_in_bfloat16(layer)
    assert (layer.weight - before).abs().max() > 0.01
    for trained in (layer, average.module):
        assert orthonormality_error(trained) < 1e-5


def test_sign_is_fixed_so_that_an_orthonormal_matrix_is_its_own_basis() -> None:
    q = orthonormalise(torch.randn(16, 16))
    torch.testing.assert_close(orthonormalise(q), q, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"latent_size": 50}, {"orthogonal": False}])
def test_projection_reads_the_coefficients_back(options: dict) -> None:
    layer = DescriptorLayer(24, 8, **options).eval()
    identity, motion = torch.randn(5, 24), torch.randn(5, 8)
    read = layer.project(layer.combine(identity, motion))
    torch.testing.assert_close(read.identity, identity, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(read.motion, motion, atol=1e-4, rtol=1e-4)


def test_identity_and_motion_subspaces_are_orthogonal_and_complete() -> None:
    layer = DescriptorLayer(24, 8).eval()
    assert layer.complete and layer.latent_size == 32
    only_identity = layer.combine(torch.randn(5, 24), torch.zeros(5, 8))
    only_motion = layer.combine(torch.zeros(5, 24), torch.randn(5, 8))
    assert (only_identity @ only_motion.T).abs().max() < 1e-4
    anything = torch.randn(5, 32)
    torch.testing.assert_close(layer.combine(*layer.project(anything)), anything, atol=1e-4, rtol=1e-4)


def test_free_residual_is_the_setting_without_identity_basis() -> None:
    layer = DescriptorLayer(motion_size=8, latent_size=32, identity_basis=False).eval()
    assert layer.identity_size == 32 and tuple(layer.weight.shape) == (32, 8)
    residual, motion = torch.randn(3, 32), torch.randn(3, 8)
    torch.testing.assert_close(layer.combine(residual, motion), residual + motion @ layer.basis().T)
    latent = layer.combine(residual, motion)
    torch.testing.assert_close(layer.combine(*layer.project(latent)), latent, atol=1e-5, rtol=1e-5)


def test_eval_basis_is_computed_once_and_follows_the_weights() -> None:
    layer = DescriptorLayer(6, 2).eval()
    with torch.no_grad():
        first = layer.basis()
        assert layer.basis() is first
        layer.weight.copy_(torch.randn(8, 8))
        second = layer.basis()
        assert second is not first
        assert orthonormality_error(layer) < 1e-5
        layer.load_state_dict(copy.deepcopy(DescriptorLayer(6, 2).state_dict()))
        assert layer.basis() is not second


def test_eval_basis_follows_weights_that_a_fused_optimiser_has_changed() -> None:
    layer = DescriptorLayer(6, 2).eval()
    with torch.no_grad():
        before = layer.basis()
    optimizer = torch.optim.Adam(layer.train().parameters(), lr=0.1, fused=True)
    (layer.basis() * torch.randn(8, 8)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert (layer.eval().basis() - before).abs().max() > 1e-3
        assert orthonormality_error(layer) < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"identity_size": 20, "motion_size": 20, "latent_size": 30}, "latent_size >= 40"),
        ({"identity_basis": False}, "latent_size"),
    ],
)
def test_impossible_sizes_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DescriptorLayer(**options)
