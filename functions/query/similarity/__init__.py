"""Which layers, models and classes of others are like these, and what that is worth."""
