"""Small plans built by hand, run on the engine and on the NumPy reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from lowbit import _core, container
from plan_reference import Reference


class Net:
    """A plan under construction: tensors by index, one op at a time."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.plan: dict[str, Any] = {"version": 1, "tensors": [], "inputs": [], "outputs": [], "ops": []}
        self.files: dict[str, np.ndarray] = {}
        self.scales: list[float] = []

    def tensor(
        self, dtype: str, shape: tuple[int, ...], scale: float | None = None, zero_point: int = 0, **more: Any
    ) -> int:
        entry = {"name": f"t{len(self.plan['tensors'])}", "dtype": dtype, "shape": [-1, *shape], **more}
        if scale is not None:
            entry |= {"scale": len(self.scales), "zero_point": zero_point}
            self.scales.append(scale)
        self.plan["tensors"].append(entry)
        return len(self.plan["tensors"]) - 1

    def input(self, *args: Any, **more: Any) -> int:
        t = self.tensor(*args, **more)
        self.plan["inputs"].append(t)
        return t

    def like(self, t: int, *shape: int) -> int:
        """A tensor with another's dtype, scale and zero point."""
        entry = self.plan["tensors"][t]
        shape = shape or tuple(entry["shape"][1:])
        self.plan["tensors"].append({**entry, "name": f"t{len(self.plan['tensors'])}", "shape": [-1, *shape]})
        return len(self.plan["tensors"]) - 1

    def op(
        self, op: str, inputs: list[int], output: int, params: dict[str, np.ndarray] | None = None, **attrs: Any
    ) -> int:
        name = f"{op}_{len(self.plan['ops'])}"
        roles = {}
        for role, value in (params or {}).items():
            roles[role] = f"{name}.{role}"
            self.files[roles[role]] = value
        self.plan["ops"].append(
            {"op": op, "name": name, "inputs": inputs, "outputs": [output], "attrs": attrs, "params": roles}
        )
        return output

    def outputs(self, *tensors: int) -> Net:
        self.plan["outputs"] += tensors
        return self

    def weights(
        self, oc: int, *rest: int, dtype: str = "int8", per_channel: bool = True, bias: bool = True
    ) -> dict[str, Any]:
        info = np.iinfo(dtype)
        depth = int(np.prod(rest))
        params = {
            "weight": self.rng.integers(info.min, info.max, (oc, *rest), endpoint=True).astype(dtype),
            "weight_scale": self.rng.uniform(0.5, 1.5, oc if per_channel else 1).astype(np.float32)
            / (128 * depth**0.5),
        }
        if bias:
            params["bias"] = self.rng.integers(-1000, 1000, oc).astype(np.int32)
        return params

    def packed(self, bits: int, oc: int, *rest: int, bias: bool = True) -> dict[str, Any]:
        """The same with packed weights, their lowest code among them."""
        params = self.weights(oc, *rest, bias=bias)
        codes = params["weight"].reshape(-1).astype(np.uint8) >> (8 - bits)
        stream = (codes[:, None] >> np.arange(bits, dtype=np.uint8) & 1).astype(np.uint8)
        return params | {
            "weight": np.packbits(stream, bitorder="little"),
            "weight_scale": params["weight_scale"] * np.float32(2 ** (8 - bits)),
        }

    def bytes(self) -> bytes:
        files = {"activation_scales": np.array(self.scales, np.float32), **self.files}
        return container.to_bytes(files, self.plan, {})

    def random_inputs(self, batch: int, hostile: bool = False) -> dict[str, np.ndarray]:
        out = {}
        for t in self.plan["inputs"]:
            entry = self.plan["tensors"][t]
            shape = (batch, *entry["shape"][1:])
            if entry["dtype"] == "float32":
                out[entry["name"]] = self.rng.normal(0, 2, shape).astype(np.float32)
            else:
                info = np.iinfo(entry["dtype"])
                ends = self.rng.choice(np.array([info.min, info.max]), shape)
                out[entry["name"]] = (ends if hostile else self.rng.integers(info.min, info.max + 1, shape)).astype(
                    entry["dtype"]
                )
        return out

    def reference(self, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
        """Outputs by name, and every tensor by index."""
        files = {"activation_scales": np.array(self.scales, np.float32), **self.files}
        reference = Reference(SimpleNamespace(data=self.plan, tensors=files))
        return reference.run(inputs), reference.values


def check(net: Net, batches: tuple[int, ...] = (1, 3), rtol: float = 0.0) -> None:
    """The engine against the reference: every level, 1 and 2 threads, kept tensors too. rtol 0: bit for bit."""

    def same(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
        if rtol and expected.dtype == np.float32:
            np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol, err_msg=what)
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=what)

    model = _core.Model.from_bytes(net.bytes())
    ran = []
    for batch in batches:
        inputs = net.random_inputs(batch, hostile=batch == 3)
        expected, values = net.reference(inputs)
        for isa in _core.isas():
            for threads in (1, 2):
                got = _core.Session(model, threads=threads, isa=isa).run(inputs)
                assert got.keys() == expected.keys()
                for name in expected:
                    same(got[name], expected[name], f"{name} batch {batch} {isa} {threads}")
            ran.append(isa)
            kept = _core.Session(model, isa=isa, keep_tensors=True)
            for name, value in kept.run(inputs).items():
                same(value, expected[name], f"{name} kept")
            for index, value in values.items():
                same(kept.tensor_codes(index), value, f"tensor {index} kept, {isa}")
    assert ran == _core.isas() * len(batches)
    empty = _core.Session(model).run(net.random_inputs(0))
    for name, value in expected.items():
        assert empty[name].shape == (0, *value.shape[1:]) and empty[name].dtype == value.dtype
