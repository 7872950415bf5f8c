"""A few bits per value: DoReFa-Net, PACT, LQ-Nets (docs/lq.md)."""
