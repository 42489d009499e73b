"""A corpus on disk: Megatron's .bin and .idx, our manifest, digests, verification."""
