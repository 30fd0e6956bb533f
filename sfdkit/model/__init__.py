"""The networks: plain torch, no Lightning."""
