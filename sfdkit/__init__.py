"""sfdkit: an experiment kit for face animation with semantic facial descriptors."""

__version__ = "0.1.0"
