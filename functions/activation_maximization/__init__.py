"""Paints, for each class and for the channels of the last convolution, a picture that they respond to strongly."""
