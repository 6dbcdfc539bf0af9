"""Pictures made worse on purpose, to measure how a model bears it: `corrupt`, fifteen kinds.

Its names are imported when first used, because the kinds need torch. It may import
`tpt.streaming` and what is below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
