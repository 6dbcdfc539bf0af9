"""Pictures of every kind become pixels, and pixels become a model's views.

It may import `tpt.model` and what is below it.
"""
