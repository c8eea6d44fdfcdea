"""What is computed: a folder with a func.yaml is a deployed function; `runtime` is what they run in, `analysis` what several of
their maths share.
"""

if (
    __name__ != "layerscope.functions"
):  # from a checkout the folder has a bare name too, by which modules would exist twice
    raise ImportError("this folder is part of a package: import layerscope.functions")
