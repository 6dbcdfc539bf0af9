"""Fifteen kinds of corruption, to measure how well a model copes with worse pictures: `corrupt`.

Its names are imported on first use, because the kinds need torch. It may import `tpt.streaming` and
what is below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
