"""Tells which classes a model takes for which, from its stored predictions."""
