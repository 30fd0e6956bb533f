"""The shard format on disk: tar files of clips with an index beside them."""
