"""One bit, and three values: signs to train through, layers, blocks, losses, steps (docs/binary.md)."""
