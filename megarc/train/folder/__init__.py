"""A run's folder on disk: its files, its lock, its logs."""
