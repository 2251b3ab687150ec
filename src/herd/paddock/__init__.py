"""The embedded world: documents, dialogues and tasks with exact verifiers, made from a seed. Imports no torch."""

from herd.paddock.checks import verify
from herd.paddock.settings import CAPABILITIES, LANGUAGES, PaddockSettings, WorldSettings
from herd.paddock.task import Check, Task, Verdict, task_from_dict, task_to_dict
from herd.paddock.tasks import tasks
from herd.paddock.world import World, make_world

__all__ = [
    "CAPABILITIES",
    "LANGUAGES",
    "Check",
    "PaddockSettings",
    "Task",
    "Verdict",
    "World",
    "WorldSettings",
    "make_world",
    "task_from_dict",
    "task_to_dict",
    "tasks",
    "verify",
]
