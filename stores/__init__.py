"""Where it lies: object stores, products and uploads in them, datasets, the catalogue, vector stores, the cache."""

if (
    __name__ != "layerscope.stores"
):  # from a checkout the folder has a bare name too, by which modules would exist twice
    raise ImportError("this folder is part of a package: import layerscope.stores")
