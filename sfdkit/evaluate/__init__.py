"""Figures, pictures and a report for a checkpoint on shards."""
