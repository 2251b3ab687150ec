"""The exceptions a user can meet. Each says what went wrong, where, and how to mend it.

    HerdError
    ├── SettingError            an unknown or ill-typed setting, a recipe that does not exist or cannot work
    ├── InputError              what the user handed in cannot be used (documents, dialogues, prompts)
    │   └── FormatError         a file is malformed or cut short; names the file and the place
    ├── ArtifactError           something a stage needs from disk is missing, damaged or of the wrong shape
    ├── MissingExtraError       an optional package is not installed; names the extra to install
    ├── StorageError            the disk is full or not writable; nothing half-written is left behind
    ├── BusyError               another process works in the same folder, or a queue is full
    ├── DeviceError             the GPU asked for is absent, or the memory of a device is full
    ├── TrainingError           a loss that is not finite, or a spike; the batch is saved beside the checkpoint
    ├── NoEffectError           a step that should change something changed nothing, or everything
    ├── HubError                the Hugging Face Hub refuses, cannot be reached, or does not send what it promised
    ├── EndpointError           a served model refuses, cannot be reached, or answers what is no answer
    └── FitError                a scaling law that the given runs cannot identify

User mistakes are exceptions with a sentence; programmer mistakes are asserts. The command line prints
`message`, `where` and `mend` and exits with `exit_code`; a traceback means a bug in herd.
"""

from __future__ import annotations

import copyreg
from typing import Any


class HerdError(Exception):
    """Base of every error that a user can act on.

    `where` is the file, setting or place; `mend` is one sentence that says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(message)
        self.message, self.where, self.mend = message, where, mend

    def __reduce__(self) -> tuple[Any, ...]:  # errors cross from one process to another whole
        return copyreg.__newobj__, (type(self), self.message), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        text = self.message
        if self.where:
            text += f" [{self.where}]"
        if self.mend:
            text += f"\n  mend: {self.mend}"
        return text


class SettingError(HerdError):
    exit_code = 2


class InputError(HerdError):
    exit_code = 3


class FormatError(InputError):
    pass


class ArtifactError(HerdError):
    exit_code = 4


class MissingExtraError(HerdError):
    exit_code = 5

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the optional package '{package}' is not installed", mend=f"pip install 'herd[{extra}]'")


class StorageError(HerdError):
    exit_code = 6


class BusyError(HerdError):
    exit_code = 7


class TrainingError(HerdError):
    exit_code = 8


class NoEffectError(HerdError):
    exit_code = 9


class FitError(HerdError):
    exit_code = 10


class HubError(HerdError):
    exit_code = 11


class EndpointError(HerdError):
    exit_code = 12


class DeviceError(HerdError):
    exit_code = 13
