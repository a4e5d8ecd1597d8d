"""What can be said about devices and versions without importing torch."""

from __future__ import annotations

import subprocess
import sys

from liquid_ssm.backends.triton_kernels import devices


def test_looking_for_a_gpu_imports_nothing(tmp_path):
    code = (
        "import sys; from liquid_ssm.backends.triton_kernels import configurations, devices; devices.has_gpu(); "
        "devices.version('torch'); configurations.pieces_for(1, 2, 3); "
        "print('torch' in sys.modules, 'triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_versions_are_numbers(monkeypatch):
    devices.version.cache_clear()
    monkeypatch.setattr(devices.metadata, "version", lambda package: "3.10.1rc2+cu129")
    assert devices.version("torch") == (3, 10, 1)
    devices.version.cache_clear()


def test_hidden_devices_are_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(devices, "_driver_has_one", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.has_gpu()
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not devices.has_gpu()
