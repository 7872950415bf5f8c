"""Runs every docstring example of the installed package."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import lowbit

MODULES = [
    "lowbit",
    *(m.name for m in pkgutil.walk_packages(lowbit.__path__, "lowbit.") if not m.name.endswith("__main__")),
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples(name):
    module = importlib.import_module(name)
    return [t for t in doctest.DocTestFinder(exclude_empty=True).find(module) if t.examples]


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("._core")])
def test_examples(name):
    if name.startswith("lowbit.torch"):
        pytest.importorskip("torch", reason="lowbit.torch needs torch")
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in examples(name):
        test.globs.update(np=np, lowbit=lowbit)  # examples may leave out these two imports
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_public_functions_have_examples():
    # lowbit.torch, which may not be importable here, has such a test of its own
    names = [m for m in MODULES if not m.endswith("._core") and not m.startswith("lowbit.torch")]
    with_examples = {t.name for m in names for t in examples(m)}
    missing = [
        n
        for n in lowbit.__all__
        if callable(getattr(lowbit, n))
        and n != "Report"  # made by compare, shown there
        and not (isinstance(getattr(lowbit, n), type) and issubclass(getattr(lowbit, n), Exception))
        and (getattr(lowbit, n).__module__ or "").startswith("lowbit.")
        and not getattr(lowbit, n).__module__.endswith("._core")
        and not any(
            t == f"{getattr(lowbit, n).__module__}.{n}" or t.startswith(f"{getattr(lowbit, n).__module__}.{n}.")
            for t in with_examples
        )
    ]
    assert not missing, missing
