"""HAQ (Wang et al., CVPR 2019): an agent that chooses every layer's bits under a budget of latency or size."""

from lowbit.torch.haq.agent import HaqSettings
from lowbit.torch.haq.finetune import FineTuning
from lowbit.torch.haq.haq_space import HaqLayer, HaqSpace
from lowbit.torch.haq.search import HaqResult, haq_search

__all__ = ["FineTuning", "HaqLayer", "HaqResult", "HaqSettings", "HaqSpace", "haq_search"]
