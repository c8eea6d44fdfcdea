"""Tells how a training went, from what was logged in it and uploaded beside the model."""
