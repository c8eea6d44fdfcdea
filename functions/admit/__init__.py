"""Reads each upload once, executing nothing in it, and stores the model in the safe form."""
