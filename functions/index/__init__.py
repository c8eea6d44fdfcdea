"""Keeps the index equal to the bucket: a row per layer and metric, per class, per model version."""
