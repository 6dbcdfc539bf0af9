"""The adapting classifier as an HTTP service, and the page to try it on; extra `serve`.

May import every other room of `tpt`.
"""
