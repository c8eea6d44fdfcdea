"""Tells how right and how sure a model is, from its stored predictions."""
