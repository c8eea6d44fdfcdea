"""Chooses the test images that show best what a model does, from its stored predictions."""
