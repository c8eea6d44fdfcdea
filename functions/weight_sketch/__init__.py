"""The function of the product `weight_sketch`."""
