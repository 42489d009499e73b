"""The keys of a run: `run.py` puts the tree together; the others each hold the keys of one part."""
