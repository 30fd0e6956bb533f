"""Generators of other methods, to be compared in the same kit: docs/methods.md tells what differs from their papers."""
