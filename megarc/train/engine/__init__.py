"""One optimizer step, on DeepSpeed.

In: a run's configuration and the ranks' groups. Out: an ``Engine`` whose ``step`` takes micro-batches and returns
loss, gradient norm and learning rate. DeepSpeed's settings, optimizer and pipeline are known in this room only.
"""
