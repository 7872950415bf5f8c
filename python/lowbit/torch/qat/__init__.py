"""Quantization-aware training for integer-only inference (docs/qat.md)."""
