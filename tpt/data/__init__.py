"""Labelled sets in the layouts people have, class lists, templates and presets.

Training and evaluation both read them. It may import `tpt.corrupt` and what is below it.
"""
