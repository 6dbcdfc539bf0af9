"""The same prediction on many machines: Ray Data reads, a pool of actors predicts.

It may import everything but the service and the commands. Ray is imported when a run begins (extra
`scale`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
