"""Shards, streams and data modules."""
