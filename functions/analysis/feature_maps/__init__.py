"""The maps that convolutions make of an image: where they are in a model, and what is read off them."""
