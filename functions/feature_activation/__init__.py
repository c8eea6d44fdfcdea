"""Finds which test images make each channel of each convolution respond most."""
