"""How datasets get into a system: digits, torchvision's readers, folders of pictures, arrays."""
