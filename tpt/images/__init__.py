"""Pictures of every kind become pixels, and pixels become views for a model.

It may import `tpt.model` and what is below it.
"""
