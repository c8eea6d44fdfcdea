"""Models of a dataset ranked by a figure, and the versions of one model in their order."""
