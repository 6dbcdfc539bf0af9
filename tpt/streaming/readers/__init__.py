"""Sources that hold many pictures each: archives, tables, buckets, data sets, films.

One module a kind. Each gives `Item`s one after the other and keeps no more than one of them (or one
batch of rows) in memory. What it needs beyond the core is imported when such a source is opened.
"""
