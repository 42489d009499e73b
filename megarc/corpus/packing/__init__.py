"""From documents to a corpus: a job of pieces shared out over workers and hosts, and their merge.

In: a ``PackRequest`` (`pack.py`): inputs, tokenizer, output. Out: a shard of each piece (`shard.py`), merged into one
corpus in the order of the documents (`merge.py`, `assemble.py`). A job that was killed goes on where it stopped.
"""
