"""Puppets: rendered talking heads whose identity, motion, landmarks and mask are known exactly."""
