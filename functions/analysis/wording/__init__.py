"""Texts about models, for `description` and `query`: what they may tell, who writes them, and what is shown of it."""
