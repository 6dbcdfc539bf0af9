"""All methods that can be found, those of installed packages too: what the shared checks run on.

`METHODS` answer by features; `TOWERS` encode the pictures themselves, with towers that they tune.
"""

from __future__ import annotations

from tpt.methods.registry import MethodInfo, list_methods

ALL = {info.name: info for info in list_methods() if isinstance(info, MethodInfo)}
METHODS = {name: info for name, info in ALL.items() if not info.needs_pictures}
TOWERS = {name: info for name, info in ALL.items() if info.needs_pictures}
