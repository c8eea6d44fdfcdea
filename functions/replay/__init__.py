"""Asks again for what is missing, and records what failed for good."""
