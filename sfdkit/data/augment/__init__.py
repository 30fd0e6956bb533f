"""Augmentation of training batches on the device."""

from sfdkit.data.augment.base import Augmentation
from sfdkit.data.augment.driver_view import DriverViewAugmentation
from sfdkit.data.augment.kornia_list import KorniaAugmentation

__all__ = ["Augmentation", "DriverViewAugmentation", "KorniaAugmentation"]
