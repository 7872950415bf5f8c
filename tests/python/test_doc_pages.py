"""Runs the Python blocks of every page in docs/, a page's blocks one after the other, as a reader would."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLUSTER = "distributed.md"  # needs ray, several machines, their paths; test_calibration_workers.py runs the like
PAGES = [p.name for p in sorted(DOCS.glob("*.md")) if "```python\n" in p.read_text() and p.name != CLUSTER]


def test_every_technique_has_a_page_that_runs():
    techniques = {"binary", "compression", "haq", "int8", "int8_training", "lq", "mixed_precision", "qat"}
    assert techniques <= {name.removesuffix(".md") for name in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    if any("torch" in b for b in blocks):
        pytest.importorskip("torch", reason="lowbit.torch needs torch")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        code = compile("\n" * line + block, str(DOCS / page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
