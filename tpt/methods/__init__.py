"""Test-time methods: one file a method on one small base, objective and tuning, the registry.

`tpt.methods.registry` lists them without importing torch. It may import `tpt.prompts` and what is
below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
