"""The microscope of one model: its layers, their channels, and the images that these respond to."""
