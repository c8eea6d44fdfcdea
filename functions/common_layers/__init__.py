"""Turns the layers of each model into vectors that can be compared across datasets."""
