"""What should be in the buckets for each model version, and how that stands: what repair and the plans of replay look at."""
