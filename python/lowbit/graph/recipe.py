"""Recipes: what precision a layer's weights, activations and output have, and which layers differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lowbit.graph.net import Net

ROUNDINGS = ("nearest_even", "gemmlowp", "single")
_WEIGHTS = ("int8", "int8-tensor", "float32")
_ACTIVATIONS = ("int8", "uint8", "dynamic", "float32")
_OUTPUTS = ("auto", "float32")


@dataclass(frozen=True)
class Recipe:
    """Precision of one layer.

    Attributes:
        weight: ``int8`` (a scale per output channel), ``int8-tensor`` (one scale), ``xnor`` (+-1), ``codebook``,
            ``uniform`` (evenly spaced values, a scale per output channel), ``lq`` (levels of a basis per output
            channel) or ``float32``.
        activation: ``int8`` (symmetric), ``uint8`` (affine), ``dynamic`` (uint8, scale found at run time), ``bits``,
            ``levels`` or ``float32``.
        output: ``auto``, or ``float32`` to leave the layer's result unquantized.
        rounding: ``nearest_even``, ``gemmlowp`` or ``single``.
        rest: recipe of the layers that a binary one or one of levels cannot apply to.
        bits: of a weight: a code into the codebook, a code of ``int8`` that uses fewer than 8, or planes of levels.
        activation_bits: of the codes that products read, everything else on codes keeps 8; or planes of levels.
        huffman: codebook: whether the file holds codes Huffman-coded where that is smaller.
        per: codebook: what has one of its own, ``tensor``, ``channel`` or ``columns:G``.
        name: what it was called.
    """

    weight: str
    activation: str
    output: str = "auto"
    rounding: str = "nearest_even"
    name: str = ""
    rest: str = "float32"
    bits: int = 8
    huffman: bool = False
    activation_bits: int = 8
    per: str = "tensor"

    @property
    def is_binary(self) -> bool:
        """Whether weights and activations are +-1."""
        return self.weight == "xnor"

    @property
    def is_leveled(self) -> bool:
        """Whether weights and activations are levels of bases, in planes of bits."""
        return self.weight == "lq"

    @property
    def needs_ranges(self) -> bool:
        """Whether a calibration is needed."""
        fitted = self.is_leveled and self.bits <= 4
        return self.is_static or fitted or ((self.is_binary or self.is_leveled) and self.for_the_rest().is_static)

    def for_the_rest(self) -> Recipe:
        """What a layer gets that cannot be binary, or in levels."""
        return replace(_NAMED[self.rest], rounding=self.rounding)

    @property
    def is_static(self) -> bool:
        """Whether activations are codes with scales known beforehand."""
        return self.activation in ("int8", "uint8")

    @property
    def is_float(self) -> bool:
        """Whether the layer stays in float where it is no product of bits."""
        return self.activation in ("float32", "bits", "levels")


_NAMED = {
    "int8": Recipe("int8", "int8", name="int8"),
    "int8-tensor": Recipe("int8-tensor", "int8", name="int8-tensor"),
    "int8-affine": Recipe("int8", "uint8", rounding="gemmlowp", name="int8-affine"),
    "int8-dynamic": Recipe("int8", "dynamic", name="int8-dynamic"),
    "float32": Recipe("float32", "float32", name="float32"),
    "lq": Recipe("lq", "levels", name="lq"),
    "lq-int8": Recipe("lq", "levels", name="lq-int8", rest="int8"),
    "xnor": Recipe("xnor", "bits", name="xnor"),
    "xnor-int8": Recipe("xnor", "bits", name="xnor-int8", rest="int8"),
}


_CODEBOOK = re.compile(r"codebook:([1-8])(?:/(channel|columns:[1-9]\d{0,8}))?(/int8)?(/huffman)?")
_LEVELS = re.compile(r"(lq|lq-int8):([1-4])/([1-4])")
_UNIFORM = re.compile(r"int:([2-8])/([2-8]|32)")


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"recipe: {what} {value!r} is not one of {', '.join(allowed)}")
    return str(value)


def _codebook(name: str) -> Recipe | None:
    """A recipe of that name, if it is one of codebooks."""
    found = _CODEBOOK.fullmatch(name)
    if found is None:
        return None
    bits, per, int8, huffman = found.groups()
    activation = "int8" if int8 else "float32"
    return Recipe("codebook", activation, name=name, bits=int(bits), huffman=bool(huffman), per=per or "tensor")


def _uniform(weight_bits: int, activation_bits: int) -> Recipe:
    name = f"int:{weight_bits}/{activation_bits}"
    if activation_bits == 32:
        return Recipe("uniform", "float32", name=name, bits=weight_bits)
    return Recipe("int8", "int8", name=name, bits=weight_bits, activation_bits=activation_bits)


def parse_recipe(recipe: str | Mapping[str, str], rounding: str | None = None) -> Recipe:
    """A recipe from its name, or from a dict with ``weight``, ``activation``, ``output`` and ``rounding``.

    Args:
        recipe: ``int8``, ``int8-tensor``, ``int8-affine``, ``int8-dynamic``, ``float32``, ``xnor``, ``xnor-int8``,
            ``lq`` (layers that come with levels on planes of bits, the rest in float32; ``lq-int8``: the rest in int8),
            ``lq:W/A``, ``lq-int8:W/A`` (the others in levels of W and A = 1 to 4 bits, fitted to weights and
            calibration),
            ``codebook:B[/channel|/columns:G][/int8][/huffman]`` (B = 1 to 8 bits a weight; one codebook, or one for
            each output channel or group of G input columns; activations in float, or int8), ``int:W/A`` (``int8``
            with weights of W and activations of A bits, 2 to 8; A = 32: in float), or a dict.
        rounding: overrides the recipe's own rounding.

    Raises:
        ValueError: where a name or value is unknown, or the parts do not go together.

    Example:
        >>> parse_recipe({"weight": "int8", "activation": "uint8"}).activation
        'uint8'
    """
    if rounding is not None:
        _one_of("rounding", rounding, ROUNDINGS)
    if isinstance(recipe, Mapping):
        unknown = set(recipe) - {"weight", "activation", "output", "rounding"}
        if unknown:
            raise ValueError(f"recipe: unknown key {sorted(unknown)[0]!r}; known: weight, activation, output, rounding")
        weight = _one_of("weight", recipe.get("weight", "int8"), _WEIGHTS)
        activation = _one_of(
            "activation", recipe.get("activation", "float32" if weight == "float32" else "int8"), _ACTIVATIONS
        )
        if (weight == "float32") != (activation == "float32"):
            raise ValueError(
                f"recipe: weight {weight!r} with activation {activation!r}; both or neither must be float32"
            )
        output = _one_of("output", recipe.get("output", "auto"), _OUTPUTS)
        own = _one_of("rounding", recipe.get("rounding", "nearest_even"), ROUNDINGS)
        result = Recipe(weight, activation, output, own, "custom")
    elif isinstance(recipe, str):
        if (codebook := _codebook(recipe)) is not None:
            result = codebook
        elif (found := _UNIFORM.fullmatch(recipe)) is not None:
            result = _uniform(int(found[1]), int(found[2]))
        elif (found := _LEVELS.fullmatch(recipe)) is not None:
            result = replace(_NAMED[found[1]], name=recipe, bits=int(found[2]), activation_bits=int(found[3]))
        elif recipe in _NAMED:
            result = _NAMED[recipe]
        else:
            raise ValueError(
                f"recipe {recipe!r} is not one of {', '.join(_NAMED)}, lq:W/A (1 to 4), "
                "codebook:B[/channel|/columns:G][/int8][/huffman] (B 1 to 8), int:W/A (2 to 8; A also 32), or a dict"
            )
    else:
        raise TypeError(f"recipe: a name or a dict is needed, not {type(recipe).__name__}")
    return result if rounding is None else replace(result, rounding=rounding)


def assign_recipes(
    net: Net, default: Recipe, overrides: Mapping[str, str | Mapping[str, str]] | None, rounding: str | None = None
) -> tuple[list[Recipe], set[str]]:
    """The recipe of every layer, and the names of the layers that an override chose.

    Args:
        net: named layers.
        default: for layers that no pattern matches.
        overrides: pattern -> recipe, tried in order; ``op:TYPE`` matches the operator (``op:Gemm``, ``op:Conv``),
        anything
            else the canonical name by ``re.fullmatch``.
        rounding: overrides the recipes' own.

    Raises:
        ValueError: where a pattern matches nothing, or is no regular expression.
    """
    rules = []
    for pattern, given in (overrides or {}).items():
        try:
            compiled = re.compile(pattern[3:] if pattern.startswith("op:") else pattern)
        except re.error as error:
            raise ValueError(f"overrides: {pattern!r} is not a regular expression: {error}") from None
        rules.append((pattern, compiled, parse_recipe(given, rounding)))
    matched: set[str] = set()
    chosen: set[str] = set()
    recipes = []
    for layer in net.layers:
        recipe = default
        hit = False
        for pattern, compiled, given_recipe in rules:
            if pattern.startswith("op:"):
                found = compiled.fullmatch(layer.onnx_op) or compiled.fullmatch(layer.op)
            else:
                found = compiled.fullmatch(layer.name)
            if found:
                matched.add(pattern)
                if not hit:
                    recipe, hit = given_recipe, True
                    chosen.add(layer.name)
        recipes.append(recipe)
    for pattern, _, _ in rules:
        if pattern not in matched:
            names = ", ".join(layer.name for layer in net.layers[:8]) + (", ..." if len(net.layers) > 8 else "")
            raise ValueError(f"overrides: {pattern!r} matches no layer; the names are {names}")
    return recipes, chosen
