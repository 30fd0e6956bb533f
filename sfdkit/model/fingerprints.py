"""Fingerprints: what files of coefficients name, so that no other model takes them for its own."""

from __future__ import annotations

import hashlib

import torch

from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer


def basis_fingerprint(descriptors: DescriptorLayer) -> str:
    """Return 16 hexadecimal digits that identify the basis of a model.

    Hashed are the raw matrix ``W``, as float32, and the switches that turn it into the basis. The basis itself is not:
    its QR differs in the last bits between devices, and even rounded such bits change a hash now and then.
    """
    weight = descriptors.weight.detach().to("cpu", torch.float32).contiguous()
    about = (tuple(weight.shape), descriptors.motion_size, descriptors.orthogonal, descriptors.identity_basis)
    digest = hashlib.sha256(f"sfdkit basis {about}".encode())
    digest.update(weight.numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def motion_fingerprint(animator: FaceAnimator) -> str:
    """Return 16 hexadecimal digits that identify the meaning of a model's motion coefficients.

    Hashed are the basis, and weights and sizes of the motion branch.
    """
    encoder = animator.driving_encoder or animator.encoder
    digest = hashlib.sha256(f"{basis_fingerprint(animator.descriptors)} {encoder.resolution}".encode())
    for part in (encoder, animator.motion_head):
        for name, value in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]
