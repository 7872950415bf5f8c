"""The report: text, JSON and one offline HTML file, from made-up numbers."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from lowbit.report import LayerReport, Report, Threshold
from lowbit.report.notes import exclusions, notes


def layer(name="conv1", **values) -> LayerReport:
    known = dict.fromkeys(("activation", "output"), "int8") | {"op": "conv2d", "weight": "int8 per channel"}
    known |= {"depth": 576, "macs": 10_000_000, "bytes": 1000, "float_bytes": 4000, "moved": 100_000}
    known |= {"ms": 0.5, "float_ms": 1.0, "sqnr_weight": 40.0, "sqnr_activation": 30.0, "sqnr": 28.0}
    return LayerReport(name, **(known | values))


def report(**values) -> Report:
    known = {"net": "net.onnx", "model": "net.lowbit", "recipe": "int8", "cpu": "A CPU", "level": "avx512"}
    known |= {"threads": 2, "batch": 1, "images": 400, "accuracy_float": 88.5, "accuracy": 87.75, "agreement": 96.25}
    known |= {"file_bytes_float": 14_000_000, "file_bytes": 3_500_000, "ms_float": 8.0, "ms": 2.0, "ms_float_min": 7.0}
    known |= {
        "ms_min": 1.9,
        "runs": 30,
        "energy_float": 1000.0,
        "energy": 100.0,
        "sqnr_images": 16,
        "sqnr_output": 25.0,
    }
    return Report(**(known | {"layers": [layer()], "versions": {"lowbit": "0.1.0"}} | values))


class Links(HTMLParser):
    """Everything in a page that would be fetched."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]


def test_own_error_adds_up():
    assert layer(sqnr_weight=30.0, sqnr_activation=30.0).sqnr_own == pytest.approx(30 - 10 * math.log10(2))
    assert layer(sqnr_weight=math.inf, sqnr_activation=30.0).sqnr_own == pytest.approx(30)
    assert layer(sqnr_weight=math.inf, sqnr_activation=math.inf).sqnr_own == math.inf
    assert layer(sqnr_weight=None).sqnr_own is None


def test_text():
    text = str(report())
    assert re.search(r"top-1, 400 images +88\.50 % +87\.75 % +-0\.75 points", text)
    assert "4.00 x smaller" in text and "4.00 x faster" in text and "10.00 x less" in text
    assert "an argument, not a measurement" in text
    assert re.search(r"conv1 +conv2d +int8 per channel .* 0\.500 +1\.00 +40\.0 +30\.0 +29\.6 +28\.0", text)
    assert "top-1" not in str(report(accuracy=None, accuracy_float=None))


def test_size_steps_of_compressed_models_only(tmp_path):
    pytest.importorskip("matplotlib")
    steps = [("float32", 4_000_000), ("pruned", 400_000), ("shared codes", 90_000), ("Huffman", 80_000)]
    small = report(size_steps=steps)
    line = "float32 4.0 MB -> pruned 400.0 kB -> shared codes 90.0 kB -> Huffman 80.0 kB (50.00 x smaller)"
    assert f"weights and biases: {line}" in str(small) and "weights and biases" not in str(report())
    assert small.to_dict()["size_steps"] == steps
    pages = []
    for one in (small, report(), report(size_steps=[("float32", 40), ("shared codes", 56)])):
        one.to_html(tmp_path / "r.html")
        pages.append((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [page.count("<svg") for page in pages] == [3, 2, 3]
    assert "80.0 kB  (50.0 x smaller)" in pages[0] and "Size, step by step" not in pages[1]
    assert "56 B<" in pages[2]  # grew: no factor


def test_json_round_trip(tmp_path):
    report(layers=[layer(sqnr=math.inf)]).to_json(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["drop"] == 0.75 and read["layers"][0]["sqnr"] is None
    assert read["layers"][0]["sqnr_own"] == pytest.approx(29.586, abs=1e-3)


def test_html_is_one_offline_file(tmp_path):
    pytest.importorskip("matplotlib")
    curve = [math.inf, 0.5, 0.1, 0.3]
    chosen = Threshold("/conv1/<Relu>", 0.01, [5, 0, 3, 1] * 64, 1.5, 2.56, "entropy", [0.5, 1.0, 1.5, 2.0], curve)
    found = report(thresholds=[chosen], notes=["a <b> note"], exclusions=["conv1"])
    found.to_html(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.found == [] and "@import" not in page and "url(http" not in page
    assert page.count("<svg") == 3  # time, error, one threshold
    assert "a &lt;b&gt; note" in page and "--set 'conv1=float32'" in page
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_html_without_labels_errors_or_thresholds(tmp_path):
    pytest.importorskip("matplotlib")
    bare = layer(ms=None, float_ms=None, sqnr_weight=None, sqnr_activation=None, sqnr=None)
    report(accuracy=None, accuracy_float=None, sqnr_output=None, layers=[bare]).to_html(tmp_path / "r.html")
    assert "<svg" not in (tmp_path / "r.html").read_text()


def test_no_partial_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report().to_json(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no folder"):
        report().to_json(tmp_path / "none" / "r.json")


def test_notes_say_why_a_layer_is_slow():
    slow = layer("slow", ms=2.0, float_ms=1.0)
    assert notes(report(layers=[layer()])) == []
    assert "slow takes 2.000 ms, 2.00 x its float time" in notes(report(layers=[layer(), slow]))[0]
    for changed, reason in [
        ({"op": "depthwise", "depth": 9}, "memory"),
        ({"depth": 27}, "27 products"),
        ({"weight": "float32", "activation": "float32"}, "float32"),
        ({"activation": "uint8 dynamic"}, "run time"),
    ]:
        assert reason in notes(report(layers=[layer("slow", ms=2.0, **changed)]))[0]
    others = [{"op": "resize", "count": 2, "ms": 3.0}]
    assert "2 resize" in notes(report(others=others))[0]


def test_exclusions_only_where_answers_and_layers_differ():
    poor, worse = layer("poor", sqnr_weight=15.0), layer("worse", sqnr_weight=5.0)
    kept = layer("kept", weight="float32", sqnr_weight=3.0)
    assert exclusions(report(layers=[layer(), poor, worse, kept])) == ["worse", "poor"]
    assert exclusions(report(layers=[poor], agreement=99.5)) == []
