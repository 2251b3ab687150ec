"""Jinja as programs that read chat templates run it: transformers' settings, in a sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template

_MOST = 10_000_000  # characters or items that one product of a template may make


class Refusal(Exception):
    """What a template says through `raise_exception`."""


def compiled(source: str) -> Template:
    """The template, ready to render. Raises jinja2.TemplateSyntaxError, and the sandbox SecurityError in rendering."""
    from jinja2 import ext, nodes, sandbox
    from jinja2.exceptions import SecurityError

    class Generation(ext.Extension):
        """`{% generation %}` marks what the assistant writes; for the text it means nothing."""

        tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    class Sandbox(sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            size = max(len(left) if hasattr(left, "__len__") else 1, len(right) if hasattr(right, "__len__") else 1)
            times = max((abs(each) for each in (left, right) if isinstance(each, int)), default=1)
            if size * times > _MOST or (operator == "**" and times > 64):
                raise SecurityError("a product of the template is too large")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _to_json
    return environment.from_string(source)


def _refuse(message: str) -> NoReturn:
    raise Refusal(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    known = {key: options[key] for key in ("separators", "sort_keys") if key in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **known)
