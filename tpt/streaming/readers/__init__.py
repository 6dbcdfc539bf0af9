"""Sources that hold many pictures: archives, tables, buckets, data sets, films.

One module a kind. Each yields `Item`s one after the other, and keeps only one of them (or one batch
of rows) in memory. Optional packages are imported when such a source is opened.
"""
