"""Everything that draws or typesets what was measured: tables, charts, the report page.

It reads results, never a model; it may import every other room of `tpt`.
"""
