"""Single test images: those behind a count, all that is said of one, and models held against each other on the same ones."""
