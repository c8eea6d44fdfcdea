"""How it travels: CloudEvents, storage notifications, and the log that carries both."""

if (
    __name__ != "layerscope.events"
):  # from a checkout the folder has a bare name too, by which modules would exist twice
    raise ImportError("this folder is part of a package: import layerscope.events")
