"""Finds which test images make each channel of each layer respond most."""
