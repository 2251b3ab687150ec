"""Devices by name, on made-up machines: what is found, what is refused, and what running out of memory says."""

from __future__ import annotations

import pytest
import torch

from herd.devices import check_name, device_of, find_device, free_memory, memory_errors, multiplies_bfloat16
from herd.errors import DeviceError, SettingError

GIB = 2**30


@pytest.fixture
def gpus(monkeypatch):
    """Makes this machine have CUDA devices with so many GiB free, of so many each, and of these capabilities."""

    def have(*free, capability=(9, 0)):
        cuda = torch.cuda
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(cuda, "is_available", lambda: bool(free))
        monkeypatch.setattr(cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(cuda, "mem_get_info", lambda device: (free[device.index] * GIB, 80 * GIB))
        monkeypatch.setattr(cuda, "memory_reserved", lambda device: 3 * GIB)
        monkeypatch.setattr(cuda, "memory_allocated", lambda device: 2 * GIB)
        monkeypatch.setattr(cuda, "get_device_name", lambda device: "Made Up 100")
        monkeypatch.setattr(cuda, "get_device_capability", lambda device: capability)

    return have


def found(name, needs=0):
    said = []
    device = find_device(name, needs=needs, say=said.append)
    return str(device), " ".join(said)


def test_auto_takes_the_freest_device_with_room(gpus):
    gpus(10, 60, 60)
    assert found("auto", 16 * GIB) == ("cuda:1", "computes on cuda:1 (Made Up 100), 61.0 GiB free")


def test_auto_takes_the_cpu_where_there_is_no_room_and_says_so(gpus):
    gpus(10, 12)
    device, said = found("auto", 16 * GIB)
    assert device == "cpu"
    assert "cuda:1 (Made Up 100), 13.0 GiB free, and 16.0 GiB are needed" in said


def test_auto_without_a_gpu_says_why(gpus, monkeypatch):
    gpus()
    assert found("auto") == ("cpu", "computes on the CPU: torch finds no CUDA device")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert found("auto") == ("cpu", "computes on the CPU: this torch is a build without CUDA")


def test_names_are_taken_at_their_word(gpus):
    gpus(10, 60)
    assert found("cuda", GIB)[0] == "cuda:0"
    assert found("cuda:1", 60 * GIB)[0] == "cuda:1"
    assert found("cpu", 2**60) == ("cpu", "")


def test_what_torch_keeps_unused_is_free(gpus):
    gpus(10)
    assert free_memory(torch.device("cuda:0")) == 11 * GIB
    assert 0 < free_memory(torch.device("cpu")) < 2**60


@pytest.mark.parametrize("name", ["mps", "gpu", "cuda:", "cuda:-1", "cuda0", "CUDA", "", "cuda:1000", "meta"])
def test_names_of_no_device_are_refused_with_those_there_are(name):
    with pytest.raises(SettingError, match="no device that herd runs on") as caught:
        find_device(name)
    assert "cuda:N" in caught.value.mend
    with pytest.raises(SettingError):
        check_name(name)


def test_an_absent_device_says_what_there_is(gpus, monkeypatch):
    gpus(10, 10)
    with pytest.raises(DeviceError, match="there is no cuda:2: torch finds 2 CUDA devices") as caught:
        find_device("cuda:2")
    assert "cuda:0 to cuda:1" in caught.value.mend
    gpus()
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="a build without CUDA") as caught:
        find_device("cuda")
    assert "install a build of torch for CUDA" in caught.value.mend


def test_a_full_device_is_refused_before_anything_is_loaded(gpus):
    gpus(10)
    with pytest.raises(DeviceError, match=r"11\.0 GiB free, and 16\.0 GiB are needed") as caught:
        find_device("cuda:0", needs=16 * GIB)
    assert caught.value.where == "cuda:0"


@pytest.mark.parametrize(("capability", "able"), [((7, 5), False), ((8, 0), True), ((8, 6), True), ((10, 0), True)])
def test_bfloat16_is_multiplied_from_ampere_on(gpus, capability, able):
    gpus(10, capability=capability)
    assert multiplies_bfloat16(torch.device("cuda:0")) == able
    assert not multiplies_bfloat16(torch.device("cpu"))


def test_the_device_of_a_model():
    assert device_of(torch.nn.Linear(2, 2, device="meta")).type == "meta"


def test_running_out_of_main_memory_is_told_with_the_mend():
    with (
        pytest.raises(DeviceError, match=r"out of memory when \d+ bytes more were asked for") as caught,
        memory_errors("less"),
    ):
        torch.empty(2**50, dtype=torch.uint8)
    assert (caught.value.where, caught.value.mend) == ("cpu", "less")


def test_running_out_of_a_gpus_memory_is_told_with_the_mend():
    words = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1 is free"
    with (
        pytest.raises(DeviceError, match=r"out of memory when 2\.00 GiB more were asked for") as caught,
        memory_errors("less"),
    ):
        raise torch.OutOfMemoryError(words)
    assert (caught.value.where, caught.value.mend) == ("cuda:1", "less")


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_errors("less"):
        torch.ones(2, 3) @ torch.ones(2, 3)
