"""From a stream of images to a stream of records: decode ahead, batch, adapt, write, resume.

Names are imported when they are used, so that a process that only reads pictures needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
