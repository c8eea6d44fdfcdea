"""Tells people of outcomes: posts what was found, or what failed, to a webhook."""
