"""``sfdkit evaluate``: plan (who drives whom) -> run (results and rows) -> summarise (figures) -> write (files)."""
