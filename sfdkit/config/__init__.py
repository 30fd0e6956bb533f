"""YAML experiments and the command line's parser."""
