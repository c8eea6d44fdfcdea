"""A state dict alone, matched by its keys and shapes to one of torchvision's classifiers, and that classifier built.

recognition     which one it is, and by which rule      table    what torchvision's look like, as data
heads           the layers that transfer learning replaces      known_modules    the module, without memory
"""

from layerscope.models.formats.architectures.known_modules import KnownArchitecture, build_known, filled
from layerscope.models.formats.architectures.recognition import body_digest, recognise

__all__ = ["KnownArchitecture", "body_digest", "build_known", "filled", "recognise"]
