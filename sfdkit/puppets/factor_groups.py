"""Identity factors of puppets by what they belong to, and those that a small picture shows at all."""

from __future__ import annotations

IDENTITY_GROUPS: dict[str, tuple[str, ...]] = {
    "skin": ("skin_tone", "skin_warmth"),
    "age": ("age",),
    "face shape": ("face_width", "face_height", "jaw", "ear_size"),
    "eyes and brows": (
        "eye_size",
        "eye_spacing",
        "eye_height",
        "eye_tilt",
        "iris_colour",
        "brow_thickness",
        "brow_arch",
    ),
    "nose and mouth": ("nose_width", "nose_length", "mouth_width", "mouth_height", "lip_thickness", "lip_colour"),
    "hair": (
        "hair_volume",
        "hair_length",
        "hairline",
        "fringe",
        "hair_part",
        "hair_curl",
        "hair_tone",
        "hair_red",
        "hair_grey",
        "hair_phase",
    ),
    "beard": ("beard", "moustache"),
    "glasses": ("glasses", "glasses_size", "glasses_shape", "glasses_tone"),
    "clothes": ("clothes_hue", "clothes_light", "clothes_saturation", "neckline"),
    "background": ("back_hue", "back_light", "back_saturation", "back_slant"),
    "light": ("light_x", "light_y", "light_warmth"),
}
"""Each factor of :class:`sfdkit.puppets.factors.IdentityFactors` once."""

LEAST_VISIBLE = 0.01
"""Mean absolute change of the head's pixels, on [0, 1], from which on a factor counts as visible."""
VISIBLE_64 = (
    "skin_tone",
    "hair_grey",
    "light_x",
    "hair_volume",
    "hair_tone",
    "hair_length",
    "face_width",
    "light_y",
    "eye_height",
    "beard",
    "face_height",
    "hair_curl",
    "fringe",
    "glasses",
    "skin_warmth",
    "light_warmth",
    "hair_part",
    "eye_size",
    "jaw",
    "eye_spacing",
    "mouth_height",
    "hairline",
)
"""The identity factors that a picture of 64 pixels shows, the most visible first.

Those that change the pixels of the head (with hair and neck) by at least :data:`LEAST_VISIBLE` in the mean when they go
from the 10th to the 90th percentile of what is drawn and all others stay as drawn; over 96 people, by
``python -m benchmarks.visible_factors``. The first changes them by 0.28, the last by 0.0106, the next one, the seed of
the strands, by 0.0083, and age by 0.0016. Clothes and background are not on the head.
"""
