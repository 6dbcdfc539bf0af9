"""All methods that can be found, those of installed packages too: what the shared checks run on."""

from __future__ import annotations

from tpt.methods.registry import MethodInfo, list_methods

METHODS = {info.name: info for info in list_methods() if isinstance(info, MethodInfo)}
