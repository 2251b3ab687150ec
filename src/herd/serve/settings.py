"""What can be set about the server. Imports no torch. Keys are no settings: they come from a file or the environment.

The limits are herd's choice, wide enough for what clients send and narrow enough that no one client can take the
server's memory; docs/serving.md has them as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from herd.errors import SettingError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 2**20


@dataclass(frozen=True)
class ServeSettings:
    """One server. `name` is what clients call the model; tokens are the model's."""

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    origins: tuple[str, ...] = ()  # other sites whose pages may call: CORS; "*" is any
    hosts: tuple[str, ...] = ()  # names this server answers to; (): loopback names when bound to loopback, else any

    max_running: int = 32  # requests computed in one step
    max_queue: int = 256  # requests that wait; more are refused with 429
    default_max_tokens: int = 2048  # of an answer, where the request names no limit
    max_prompt_tokens: int = 0  # of one prompt; 0: as many as the model and the cache hold
    max_answer_tokens: int = 0  # of one answer, whatever it asks for; 0: as many as context and cache have room for
    max_body_bytes: int = 16 * MIB
    max_bodies_bytes: int = 256 * MIB  # of all requests under way together; parsed they take a few times as much
    max_messages: int = 4096
    max_tools: int = 128
    max_n: int = 64  # answers of one request, over all its prompts
    max_told: int = 2**19  # log-probabilities in one answer, alternatives and all: each takes half a kilobyte
    max_stops: int = 16  # OpenAI takes 4, vLLM any number
    max_inputs: int = 2048  # texts of one embeddings request, as OpenAI
    max_embedding_tokens: int = 8192  # of one text: its keys and values stand outside the cache
    max_connections: int = 1024

    head_seconds: float = 10.0  # for the request line and the headers
    body_seconds: float = 60.0  # for the rest of a request
    write_seconds: float = 30.0  # that a client may leave what it is sent unread
    keep_alive_seconds: float = 75.0  # between two requests on one connection
    drain_seconds: float = 60.0  # for requests under way when the server is told to stop

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise SettingError(f"port is {self.port}", where="port", mend="give 1 to 65535, or 0 for any free one")
        if not self.name:
            raise SettingError("the model has no name", where="name", mend="give --served-name")
        for name, value in vars(self).items():
            least = 0 if name in ("max_queue", "max_prompt_tokens", "max_answer_tokens", "port") else 1e-3
            if isinstance(value, int | float) and value < least:
                raise SettingError(f"{name} is {value}", where=name, mend="give a positive number")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:  # a name, and whoever owns it says where it leads
            return False
