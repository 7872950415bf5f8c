"""Training in few bits with PyTorch: straight-through estimators, binary weights, layers, and the steps they need.

Functions first, modules second. ``pip install "lowbit[torch]"``.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('lowbit.torch needs PyTorch: pip install "lowbit[torch]"') from error

from lowbit.torch.activations import (
    LearnedSign,
    Pact,
    dorefa_activation,
    dorefa_gradient,
    k_map,
    pact,
)
from lowbit.torch.binary import BinaryConv2d, BinaryLinear
from lowbit.torch.blocks import BiRealBlock, XnorBlock, set_error_decay
from lowbit.torch.compression import (
    CodebookConv2d,
    CodebookLinear,
    CodebookWeight,
    Pruner,
    shared_weight,
    unshared,
)
from lowbit.torch.connect import BinaryConnectConv2d, BinaryConnectLinear
from lowbit.torch.deviation import DeviationSteps, deviation_steps, gradient_deviations
from lowbit.torch.distributed import all_reduce_statistics
from lowbit.torch.estimators import (
    ap2,
    approx_sign,
    error_decay_sharpness,
    error_decay_sign,
    hard_sigmoid,
    hard_sign,
    sign,
    sign_swish,
    stochastic_sign,
    straight_through,
)
from lowbit.torch.fake_quantize import FakeQuantize
from lowbit.torch.folding import QatConv2d, QatLayer, QatLinear, freeze_batch_norm
from lowbit.torch.haq import HaqLayer, HaqResult, HaqSettings, HaqSpace, haq_search
from lowbit.torch.int8_train import Int8TrainConv2d, Int8TrainLinear
from lowbit.torch.layers import BinaryWeight, glorot_scale
from lowbit.torch.losses import distribution_loss, squared_hinge
from lowbit.torch.lq import LQActivation, LQConv2d, LQLinear, LQWeight
from lowbit.torch.normalization import ShiftBatchNorm, refresh_batch_norm
from lowbit.torch.observers import EmaRange
from lowbit.torch.qat import prepare_qat
from lowbit.torch.steps import BinarySteps, ShiftAdaMax, binary_steps
from lowbit.torch.swapping import swap
from lowbit.torch.ternary import TernaryConv2d, TernaryLinear
from lowbit.torch.weights import (
    balanced,
    binary_connect,
    dorefa_weight,
    lab_alpha,
    libra_alpha,
    libra_weight,
    quantize_unit,
    ternary_alpha,
    ternary_codes,
    ternary_weight,
    xnor_alpha,
    xnor_weight,
)
from lowbit.torch.xnor import XnorConv2d, XnorLinear

__all__ = [
    "BiRealBlock",
    "BinaryConnectConv2d",
    "BinaryConnectLinear",
    "BinaryConv2d",
    "BinaryLinear",
    "BinarySteps",
    "BinaryWeight",
    "CodebookConv2d",
    "CodebookLinear",
    "CodebookWeight",
    "DeviationSteps",
    "EmaRange",
    "FakeQuantize",
    "HaqLayer",
    "HaqResult",
    "HaqSettings",
    "HaqSpace",
    "Int8TrainConv2d",
    "Int8TrainLinear",
    "LQActivation",
    "LQConv2d",
    "LQLinear",
    "LQWeight",
    "LearnedSign",
    "Pact",
    "Pruner",
    "QatConv2d",
    "QatLayer",
    "QatLinear",
    "ShiftAdaMax",
    "ShiftBatchNorm",
    "TernaryConv2d",
    "TernaryLinear",
    "XnorBlock",
    "XnorConv2d",
    "XnorLinear",
    "all_reduce_statistics",
    "ap2",
    "approx_sign",
    "balanced",
    "binary_connect",
    "binary_steps",
    "deviation_steps",
    "distribution_loss",
    "dorefa_activation",
    "dorefa_gradient",
    "dorefa_weight",
    "error_decay_sharpness",
    "error_decay_sign",
    "freeze_batch_norm",
    "glorot_scale",
    "gradient_deviations",
    "haq_search",
    "hard_sigmoid",
    "hard_sign",
    "k_map",
    "lab_alpha",
    "libra_alpha",
    "libra_weight",
    "pact",
    "prepare_qat",
    "quantize_unit",
    "refresh_batch_norm",
    "set_error_decay",
    "shared_weight",
    "sign",
    "sign_swish",
    "squared_hinge",
    "stochastic_sign",
    "straight_through",
    "swap",
    "ternary_alpha",
    "ternary_codes",
    "ternary_weight",
    "unshared",
    "xnor_alpha",
    "xnor_weight",
]
