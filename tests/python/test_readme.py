"""README's commands on a real network, as they stand there but on fewer images."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LOWBIT_DATA", ROOT / "../shared/data")).resolve()
NET = "mobilenet_v2_100.onnx"
FEWER = {
    "calibrate": ["--rows", "0:4"],
    "compare": ["--rows", "100:104", "--seconds", "0.02"],
    "bench": ["--seconds", "0.02"],
}
SHOWN = {
    "calibrate": "4 samples",
    "convert": "53 of 53 layers in int8",
    "info": "int8 per channel",
    "compare": "same answer, 4 images",
    "bench": "onnxruntime",
    "export": "mnv2.qdq.onnx",
}


def commands():
    section = (ROOT / "README.md").read_text().split("## A real network", 1)[1]
    block = re.search(r"```\n(lowbit .*?)```", section, re.S).group(1)
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.skipif(not (DATA / NET).is_file(), reason=f"no {NET} in LOWBIT_DATA ({DATA})")
def test_commands_of_a_real_network(tmp_path):
    shutil.copy(DATA / NET, tmp_path)
    shutil.copy(ROOT / "examples/nets/mobilenet_v2_100.toml", tmp_path)
    images = DATA / "imagenet_sample500.zip"
    ran = []
    for command in commands():
        name = command[0]
        arguments = [str(images) if a == images.name else a for a in command] + FEWER.get(name, [])
        done = subprocess.run(
            [sys.executable, "-m", "lowbit", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
        assert SHOWN[name] in done.stdout, f"{shlex.join(command)}\n{done.stdout}"
        ran.append(name)
    assert ran == list(SHOWN)
    assert {"mnv2.lowbit", "mnv2.calib.json", "mnv2.qdq.onnx", "report.html"} <= {p.name for p in tmp_path.iterdir()}
