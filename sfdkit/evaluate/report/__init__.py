"""The report of an evaluation: one html file that needs nothing else, no network and no script."""
