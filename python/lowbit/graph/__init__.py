"""Graph: an ONNX network in, a plan out."""
