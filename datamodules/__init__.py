"""One data module per data set; each reads the shards that ``sfdkit shards pack`` made of it."""
