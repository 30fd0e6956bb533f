"""Studies: the same experiment in several variants and seeds, run side by side and compared."""
