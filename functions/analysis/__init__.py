"""What the maths of several functions share: forward passes, activations, costs, outputs, pictures, texts."""
