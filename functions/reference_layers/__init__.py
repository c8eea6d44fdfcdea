"""Makes untrained networks of each model's architecture, which similarities are judged against."""
