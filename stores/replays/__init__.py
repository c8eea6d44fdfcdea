"""Replay as it lies in the bucket: what is selected of what is not there, the plan, and how far its run has come."""
