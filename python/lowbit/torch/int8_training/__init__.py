"""Training in 8 bits, gradients included (docs/int8_training.md)."""
