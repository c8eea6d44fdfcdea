"""How a layer represents the probe images: Grams of its responses, and vectors whose inner products are similarities."""
