"""Finds where a model can be cut into stages, measures what crosses there, and proves that the outputs stay the same."""
