"""A run over shifted sets: what is walked over, what is measured, protocols and transfer.

It draws nothing: `tpt.report` reads its results. It may import `tpt.data` and what is below it.
"""
