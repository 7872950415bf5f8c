"""Deep Compression's parts: pruning, and layers whose weights share a codebook (docs/compression.md)."""
