"""What every run needs on disk: files that are whole or absent, settings, a journal, a lock.

It imports `tpt.text` and `tpt.errors` only, so that every other room can use it.
"""
