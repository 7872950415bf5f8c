"""The demo on its shipped files: small, licensed, and within the accuracy that README promises."""

import re

import numpy as np
import onnxruntime
import pytest

from lowbit import demo

FOLDER = demo.files("lowbit.demo")
XNOR_PROMISED = 85.0  # percent


def test_shipped_files_are_small_and_complete():
    data = np.load(FOLDER / "fashion.npz")
    assert {k: v.shape for k, v in data.items()} == {
        "x_calibration": (500, 28, 28), "y_calibration": (500,), "x_test": (2000, 28, 28), "y_test": (2000,),
    }  # fmt: skip
    sizes = {name: (FOLDER / name).stat().st_size for name in demo.FILES}
    assert sizes["fashion.npz"] < 1.5e6 and sizes["fashion.onnx"] < 1e6
    assert "Zalando" in (FOLDER / "LICENSE.fashion-mnist").read_text()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    stages = []
    folder = tmp_path_factory.mktemp("demo")
    found = demo.run(threads=1, seconds=0.05, keep=folder, progress=lambda *a: stages.append(a))
    return found, stages, folder


def test_demo_keeps_the_accuracy(result):
    found, stages, _ = result
    float_row, int8, four, mixed, levels, codebook, compressed, xnor = found["rows"]
    data = np.load(FOLDER / "fashion.npz")
    x = ((data["x_test"].astype(np.float32) / 255 - 0.2860) / 0.3530)[:, None].astype(np.float32)
    session = onnxruntime.InferenceSession(str(FOLDER / "fashion.onnx"))
    truth = 100 * float((session.run(None, {"image": x})[0].argmax(1) == data["y_test"]).mean())
    assert float_row["accuracy"] == pytest.approx(truth, abs=0.1)
    assert int8["accuracy"] > float_row["accuracy"] - 1.0 and int8["agreement"] > 96
    assert four["accuracy"] > float_row["accuracy"] - 1.5 and four["bytes"] < 0.17 * float_row["bytes"]
    assert mixed["accuracy"] > float_row["accuracy"] - 1.0 and mixed["bytes"] < four["bytes"]
    assert levels["accuracy"] > float_row["accuracy"] - 1.0 and levels["bytes"] < 0.2 * float_row["bytes"]
    assert xnor["accuracy"] > XNOR_PROMISED and xnor["bytes"] < 120_000 and xnor["ms"] > 0
    assert codebook["accuracy"] > float_row["accuracy"] - 1.0 and codebook["bytes"] < 0.2 * float_row["bytes"]
    assert compressed["accuracy"] > float_row["accuracy"] - 2.5 and compressed["bytes"] < codebook["bytes"]
    assert int8["bytes"] < 0.45 * float_row["bytes"] and int8["ms"] > 0
    assert {s for s, _, _ in stages} >= {"calibrating", "answers", "errors per layer", "timing"}


def test_demo_text_and_files(result):
    found, _, folder = result
    text = demo.text(found)
    assert "float32 (onnxruntime)" in text and "2000 test images" in text and str(folder) in text
    steps = dict(found["rows"][6]["size_steps"])
    assert list(steps) == ["float32", "pruned", "shared codes", "Huffman"] and found["rows"][1]["size_steps"] == []
    assert sorted(steps.values(), reverse=True) == list(steps.values())
    assert re.search(r"\nweights and biases +float32 +pruned +shared codes +Huffman\n4-bit codebook ", text)
    assert re.search(r"\nDeep Compression" + r" +\d+\.\d kB" * 4 + r"\n", text)
    names = {p.name for p in folder.iterdir()}
    assert {"fashion.int8.lowbit", "fashion.int8.html", "fashion.calib.json", "fashion.onnx"} <= names
