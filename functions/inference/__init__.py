"""Answers for one picture: the class that a stored model gives it, and what that answer stands on."""
