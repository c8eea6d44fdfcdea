"""Whole pickled models: rebuilt from their records, layer by layer; the classes that a file names are only looked up.

sequential         from a record to a module      layer_states    the layers of torch.nn
torchvision_blocks the modules of torchvision     own_classes     what is said of anything else
"""
