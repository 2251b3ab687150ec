"""What lies between GPUs, level by level, and how long a collective takes over it.

A level joins groups of the level below: GPUs of a node by NVLink, nodes of a pod by their network cards, pods by a
layer with fewer cables than would carry all of it at once. A ring over n members passes (n-1)/n of the whole past
each of them; members that share a node share its cards' sum; pods share their uplinks with every ring that crosses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from herd.config import load, need, unknown
from herd.scaling.plan.efficiency import LINK_SHARE, NETWORK_SHARE
from herd.scaling.plan.hardware import Gpu


@dataclass(frozen=True)
class Network:
    """Beyond the node. Rates are bytes/s one way, of one GPU's network card."""

    name: str
    card_rate: float
    pod: int  # GPUs with full bandwidth among them; 0: all
    oversubscription: float  # what leaves a pod has 1/this of what moves within
    link_latency: float  # seconds a step of a ring, within a node
    latency: float  # the same between nodes
    pod_latency: float  # and between pods
    storage_rate: float = 2e12  # bytes/s, all GPUs together
    measured: bool = False
    sources: str = ""

    def __post_init__(self) -> None:
        for name in ("card_rate", "oversubscription", "storage_rate"):
            need(self, name, getattr(self, name) > 0, "more than 0")
        for name in ("pod", "link_latency", "latency", "pod_latency"):
            need(self, name, getattr(self, name) >= 0, "0 or more")


# Latencies: NVLink from memory (a few microseconds a step); the paper speaks of tens of microseconds across its
# network (section 3.3.2), of which a hop within a pod is herd's choice of a fifth.
NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(
            "roce", 50e9, 3072, 7.0, 2e-6, 8e-6, 20e-6, 2e12,
            sources="paper, section 3.3.1: 400 Gb/s a GPU, pods of 3,072 GPUs, 1:7 between pods; Tectonic 2 TB/s",
        ),
        Network(
            "infiniband", 50e9, 0, 1.0, 2e-6, 5e-6, 5e-6, 2e12,
            sources="Quantum-2: 400 Gb/s a GPU; full bisection and latency: herd's choice; storage as the paper",
        ),
        Network(
            "infiniband-200", 25e9, 0, 1.0, 2e-6, 5e-6, 5e-6, 1e12,
            sources="HDR: 200 Gb/s a GPU, usual with A100; the rest herd's choice",
        ),
        Network(
            "ethernet", 12.5e9, 0, 1.0, 2e-6, 30e-6, 30e-6, 50e9,
            sources="100 Gb/s a GPU without RDMA; herd's choice",
        ),
    )
}  # fmt: skip


def find_network(name: str) -> Network:
    if name in NETWORKS:
        return NETWORKS[name]
    if name.endswith(".json"):
        return load(Path(name), Network)
    raise unknown(name, NETWORKS, "a network that the planner knows, nor a .json file that describes one")


@dataclass(frozen=True)
class Group:
    """The ranks of one collective: `size` of them, the first `stride` apart; `rings` such groups work at once."""

    size: int
    stride: int
    rings: int


@dataclass(frozen=True)
class Fabric:
    """A network with these GPUs in its nodes."""

    gpu: Gpu
    network: Network

    def rate(self, group: Group) -> float:
        """Bytes/s past one member of a ring."""
        links = self.gpu.link_rate * (1.0 if self.gpu.measured else LINK_SHARE)
        if group.size * group.stride <= self.gpu.node:
            return links
        card = self.network.card_rate * (1.0 if self.network.measured else NETWORK_SHARE)
        sharing = max(1, min(group.size, self.gpu.node // group.stride))
        across = min(links, card * sharing)
        if self._crosses_pods(group):
            uplinks = self.network.pod * card / self.network.oversubscription
            across = min(across, uplinks / group.rings)
        return across

    def ring(self, whole_bytes: float, group: Group) -> float:
        """Seconds of an all-gather to `whole_bytes` at every member."""
        if group.size <= 1:
            return 0.0
        part = (group.size - 1) / group.size
        return whole_bytes * part / self.rate(group) + (group.size - 1) * self._step(group)

    def reduce(self, whole_bytes: float, group: Group) -> float:
        """Seconds of a reduce-scatter, which takes longer than a gather where processors add up (gloo)."""
        machine = self.gpu.measured
        slower = self.gpu.link_rate / machine.reduce_rate if machine else 1.0
        return self.ring(whole_bytes * slower, group)

    def all_reduce(self, whole_bytes: float, group: Group) -> float:
        return self.ring(whole_bytes, group) + self.reduce(whole_bytes, group)

    def send(self, size: float, stride: int) -> float:
        """Seconds until what one rank sends is at the rank `stride` further on."""
        pair = Group(2, stride, 1)
        return size / self.rate(pair) + self._step(pair)

    def _crosses_pods(self, group: Group) -> bool:
        return 0 < self.network.pod < group.size * group.stride

    def _step(self, group: Group) -> float:
        """Latency of a step; a long ring takes a tree's number of them for small messages, hidden by pipelining."""
        if group.size * group.stride <= self.gpu.node:
            return self.network.link_latency
        return self.network.pod_latency if self._crosses_pods(group) else self.network.latency
