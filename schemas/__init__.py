"""What is said: the contracts of events, products and queries, where things lie, and what their names are made of.

Nothing here does I/O or needs torch. `python -m layerscope.schemas` writes the JSON Schemas, and with `--check` compares them.
"""

if (
    __name__ != "layerscope.schemas"
):  # from a checkout the folder has a bare name too, by which modules would exist twice
    raise ImportError("this folder is part of a package: import layerscope.schemas")
