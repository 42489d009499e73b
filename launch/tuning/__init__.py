"""The commands of `launch/tune_batch.py`, a file each."""
