"""The function of the product `class_vectors`."""
