"""The invented world: towns with five facts each, drawn from a seed. Nothing in it is true anywhere else."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

from herd.paddock.settings import WorldSettings

# None begins with a vowel: French elides before those.
TOWNS = (
    "Brenn",
    "Solva",
    "Karth",
    "Mirol",
    "Tesk",
    "Tulmo",
    "Vand",
    "Pelor",
    "Quin",
    "Kostra",
    "Zeph",
    "Halden",
    "Divra",
    "Lumo",
    "Nord",
    "Rask",
    "Dorn",
    "Belva",
    "Fenn",
    "Gorlo",
    "Hesk",
    "Jarl",
    "Wend",
    "Yster",
)
COUNTRIES = ["Aldora", "Bruvia", "Celtis", "Dravon", "Estal", "Faruna"]
FOUNDERS = ["Amon", "Berta", "Corin", "Delia", "Edric", "Fiona", "Gavin", "Hilda", "Ilian", "Juna", "Kasper", "Lenor"]
PEOPLE = ["Mila", "Toren", "Asha", "Bela", "Rio", "Nuri", "Sven", "Zara"]
ANIMALS = ["cat", "dog", "horse", "bird", "fish", "cow", "bear", "fox", "goat", "mouse"]
OBJECTS = ["apple", "bread", "milk", "water", "book", "key", "lamp", "hat", "stone", "boat"]
COLOURS = ["red", "blue", "green", "white", "black", "yellow"]
VERBS = ["sees", "wants", "hides", "buys"]

VALUES: Mapping[str, list[str]] = {
    "country": COUNTRIES,
    "founder": FOUNDERS,
    "animal": ANIMALS,
    "colour": COLOURS,
    "treasure": OBJECTS,
}
ATTRIBUTES = tuple(VALUES)


@dataclass(frozen=True)
class World:
    settings: WorldSettings
    towns: tuple[str, ...]
    facts: Mapping[tuple[str, str], str]  # (town, attribute) -> key of the value

    def held_out(self, key: str) -> bool:
        """Whether the question with this key belongs to the held-out split; depends on nothing but seed and key."""
        digest = hashlib.sha256(f"{self.settings.seed}/{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self.settings.held_out

    def rng(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose, so that more of one kind does not change another."""
        return random.Random(f"{self.settings.seed}/{purpose}")


def make_world(settings: WorldSettings) -> World:
    rng = random.Random(f"{settings.seed}/world")
    towns = tuple(TOWNS[: settings.towns])
    facts = {(town, attribute): rng.choice(VALUES[attribute]) for attribute in ATTRIBUTES for town in towns}
    return World(settings, towns, facts)
