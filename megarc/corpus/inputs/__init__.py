"""From files to documents: which files are read, how they are cut, opened and decoded.

In: paths, folders and patterns of jsonl, text, parquet, plain or compressed (`find_files.py` lists them). Out: spans of
files
that workers share out (`split_files.py`), and the documents of a span, one at a time (`documents.py`).
"""
