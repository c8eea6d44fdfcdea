"""The channels of a model's layers and the maps that they make of an image: where they are, and what is read off them."""
