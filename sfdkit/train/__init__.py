"""The training task, its command and its callbacks."""
