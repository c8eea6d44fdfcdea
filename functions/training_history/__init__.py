"""Shows how a training went, from what was logged in it and uploaded with the model."""
