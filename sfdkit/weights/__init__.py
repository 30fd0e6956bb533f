"""Weights without a training: the file that holds them, those that come with sfdkit, and commands about both."""
