"""Tells what a model is made of: its layers and what they cost, its code, and a diagram of it."""
