"""ONNX files: read as data, and made into the safe form's graph step by step; nothing is run, no other file is opened.

protobuf_scan, tensors, program    the file, checked
patterns                           steps that were one layer
values, flow, names                what is followed, what is written, and under which names
constants                          arithmetic on sizes and weights
windows, layers, weights, activations, shapes, parts    the operators
"""

from layerscope.models.formats.onnx_graph.reader import read_onnx

__all__ = ["read_onnx"]
