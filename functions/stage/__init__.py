"""Runs one stage of a model that is split: takes what the stage before sends, and hands on what comes of it."""
