"""`layerscope doctor`: what is missing, in the order in which to mend it, each with the command or setting that does.

machine    what this computer needs to run things itself
network    names, connections, certificates
services   the object store, Kafka, Milvus, Redis, and `query`, as the settings name them
checks     how one look is taken, and left out where what it stands on is not there
"""
