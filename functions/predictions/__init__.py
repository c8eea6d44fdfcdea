"""Runs each model over its test images and stores the outputs."""
