"""Exported programs (.pt2), read into the safe form: JSON and raw weights; nothing in them is run, evaluated or unpickled.

program, arguments    the JSON of the graph          weights    tensors over the bytes of the archive
aten                  ATen's core operators in the words that traces have
walk, module_names    the calls of the graph, and the layers of torch.nn that they come from
"""

from layerscope.models.formats.exported_program.reader import read_exported

__all__ = ["read_exported"]
