"""Deep Compression: prune, share weights, code positions as gaps, Huffman (Han, Mao, Dally, arXiv 1510.00149)."""

from lowbit.compression.accounting import LayerSize, layer_size, layer_sizes, size_steps, size_table
from lowbit.compression.checkpoint import compress_tensors, load_compressed, save_compressed
from lowbit.compression.coded import CodedWeights, code_weights
from lowbit.compression.pipeline import compress
from lowbit.compression.pruning import gradual_density, magnitude_mask
from lowbit.compression.published import SQUEEZENET_1_0, LayerShape, read_published, write_published
from lowbit.compression.relative import relative_decode, relative_encode
from lowbit.compression.sharing import codebook_gradient, finetune_codebook, share_weights

__all__ = [
    "SQUEEZENET_1_0",
    "CodedWeights",
    "LayerShape",
    "LayerSize",
    "code_weights",
    "codebook_gradient",
    "compress",
    "compress_tensors",
    "finetune_codebook",
    "gradual_density",
    "layer_size",
    "layer_sizes",
    "load_compressed",
    "magnitude_mask",
    "read_published",
    "relative_decode",
    "relative_encode",
    "save_compressed",
    "share_weights",
    "size_steps",
    "size_table",
    "write_published",
]
