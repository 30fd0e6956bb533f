"""Animators as ONNX or pt2 graphs: writing them, checking them against eager, and running them without torch."""
