"""Training in few bits with PyTorch: straight-through estimators, binary weights, layers, and the steps they need.

Functions first, modules second. ``pip install "lowbit[torch]"``.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('lowbit.torch needs PyTorch: pip install "lowbit[torch]"') from error

from lowbit.torch.autograd import straight_through
from lowbit.torch.binary.activations import LearnedSign, k_map
from lowbit.torch.binary.binarization import (
    balanced,
    binary_connect,
    lab_alpha,
    libra_alpha,
    libra_weight,
    ternary_alpha,
    ternary_codes,
    ternary_weight,
    xnor_alpha,
    xnor_weight,
)
from lowbit.torch.binary.blocks import BiRealBlock, XnorBlock, set_error_decay
from lowbit.torch.binary.bnn import BinaryConv2d, BinaryLinear
from lowbit.torch.binary.connect import BinaryConnectConv2d, BinaryConnectLinear
from lowbit.torch.binary.estimators import (
    ap2,
    approx_sign,
    error_decay_sharpness,
    error_decay_sign,
    hard_sigmoid,
    hard_sign,
    sign,
    sign_swish,
    stochastic_sign,
)
from lowbit.torch.binary.layers import BinaryWeight, glorot_scale
from lowbit.torch.binary.losses import distribution_loss, squared_hinge
from lowbit.torch.binary.normalization import ShiftBatchNorm, refresh_batch_norm
from lowbit.torch.binary.steps import BinarySteps, ShiftAdaMax, binary_steps
from lowbit.torch.binary.ternary import TernaryConv2d, TernaryLinear
from lowbit.torch.binary.xnor import XnorConv2d, XnorLinear
from lowbit.torch.compression.codebook_layers import (
    CodebookConv2d,
    CodebookLinear,
    CodebookWeight,
    shared_weight,
    unshared,
)
from lowbit.torch.compression.pruner import Pruner
from lowbit.torch.distributed import all_reduce_statistics
from lowbit.torch.few_bits.dorefa import dorefa_activation, dorefa_gradient, dorefa_weight, quantize_unit
from lowbit.torch.few_bits.lq_layers import LQConv2d, LQLinear
from lowbit.torch.few_bits.lq_quantizers import LQActivation, LQWeight
from lowbit.torch.few_bits.pact import Pact, pact
from lowbit.torch.haq import HaqLayer, HaqResult, HaqSettings, HaqSpace, haq_search
from lowbit.torch.int8_training.deviation import DeviationSteps, deviation_steps, gradient_deviations
from lowbit.torch.int8_training.int8_train import Int8TrainConv2d, Int8TrainLinear
from lowbit.torch.qat.ema_range import EmaRange
from lowbit.torch.qat.fake_quantize import FakeQuantize
from lowbit.torch.qat.folding import QatConv2d, QatLayer, QatLinear, freeze_batch_norm
from lowbit.torch.qat.prepare import prepare_qat
from lowbit.torch.swapping import swap

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
