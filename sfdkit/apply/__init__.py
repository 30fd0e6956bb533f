"""Using a trained animator: animate, edit, interpolate, motion tracks."""
