"""Making shards: sources, encoding, splits, copies and checks."""
