"""Tells what is wrong with a model, from its other products: rules with a baseline each, ranked by what they cost."""
