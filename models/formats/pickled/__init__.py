"""What torch.save wrote, zip or legacy, read without executing any of it: from a path to plain data.

    reader --> archive | legacy --> opcodes --> machine --> calls, tensors --> formats.records

Nothing that a file names is imported or called, and torch is not needed. Tensors stay in the file, which is mapped.
"""

from layerscope.models.formats.pickled.reader import Saved, read_bytes, read_pickled

__all__ = ["Saved", "read_bytes", "read_pickled"]
