"""What is said: the contracts of events, products and queries, where things lie, and what their names are made of.

Nothing here does I/O or needs torch. `python -m schemas` writes the JSON Schemas, `python -m schemas --check` compares them.
"""
