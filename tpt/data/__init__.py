"""Labelled sets from the layouts people have them in, class lists, templates and presets.

Training and evaluation both read them; it may import `tpt.corrupt` and what is below it.
"""
