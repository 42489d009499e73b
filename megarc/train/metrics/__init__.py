"""Numbers about a run: metrics lines, held-out loss, gradient noise scale, the device's limits."""
