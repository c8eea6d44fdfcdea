"""Runs a model on the same images prepared in other ways, to tell whether it was trained on others than it is given."""
