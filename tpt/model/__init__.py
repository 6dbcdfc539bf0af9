"""An open_clip model as an image tower, a text tower and facts; finding and loading one.

It imports `tpt.runs`, `tpt.text` and `tpt.errors` only.
"""
