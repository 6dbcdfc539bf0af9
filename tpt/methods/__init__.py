"""Test-time methods: one file a method, all with the same two calls.

`adapt(views)` encodes normalised views; `adapt_features(features)` starts from unit features.
"""

from tpt.methods.base import Adapted, Method
from tpt.methods.tpt import TPT
from tpt.methods.zero_shot import ZeroShot

__all__ = ["TPT", "Adapted", "Method", "ZeroShot"]
