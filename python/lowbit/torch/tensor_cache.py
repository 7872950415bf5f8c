"""What is worked out from a tensor once and kept while the tensor lives and does not change.

A change through ``weight.data`` goes unseen, as torch does not count it; change weights under ``torch.no_grad()``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")
_kept: Any = WeakIdKeyDictionary()  # tensor -> {what: (stamp, value)}


def kept(what: str, make: Callable[[], T], tensor: Tensor, *others: Tensor) -> T:
    """``make()``, which depends on these tensors, kept with the first until one of them changes."""
    tensors = (tensor, *others)
    if any(t.is_inference() for t in tensors):  # no version tells whether they changed
        return make()
    stamp = tuple((t._version, t.data_ptr()) for t in tensors)
    known = _kept.setdefault(tensor, {})
    if what not in known or known[what][0] != stamp:
        with torch.inference_mode(False), torch.no_grad():
            known[what] = (stamp, make())
    value: T = known[what][1]
    return value
