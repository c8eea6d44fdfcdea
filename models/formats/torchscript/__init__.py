"""Traced TorchScript archives, read into the safe form: their code is parsed and followed, never compiled or run.

code    the text of its classes                  flow, numbers     the calls of its forward, down to its layers
layers  which layer of torch.nn a module is      nodes, special    the steps of the safe form
        (layer_calls, weighted, norms)           operators         what is allowed, as data
"""

from layerscope.models.formats.torchscript.reader import read_traced

__all__ = ["read_traced"]
