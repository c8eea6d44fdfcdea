"""Keeps the index equal to the bucket: a row per layer and metric, a row per model version."""
