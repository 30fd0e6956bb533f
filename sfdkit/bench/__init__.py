"""Measuring speed: inference, training, and the whole way from file to file."""
