"""The chat format as a Jinja template, for programs that read our folders without herd (transformers, vLLM).

It writes what `herd.text.chat.encode_prompt` encodes, but as text: in those programs a user who types `<|eot_id|>`
makes a special token. Content is trimmed on both sides, as there.
"""

from __future__ import annotations

import json

from herd.text.tools import TOOLS_PREAMBLE

# Refused rather than dropped: several calls in one message, and roles that the model never saw.
_TEMPLATE = """\
{{- bos_token }}
{%- set ns = namespace(head='') %}
{%- if tools %}
    {%- set ns.head = PREAMBLE %}
    {%- for tool in tools %}
        {%- set ns.head = ns.head + '\\n' + (tool.function if tool.function else tool) | tojson %}
    {%- endfor %}
    {%- if messages[0].role != 'system' %}
        {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + ns.head + '<|eot_id|>' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {%- if role not in ['system', 'user', 'assistant', 'ipython'] %}
        {{- raise_exception('Unknown role: ' + role) }}
    {%- endif %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
    {%- set head = ns.head + '\\n\\n' if tools and loop.first and role == 'system' else '' %}
    {{- (head + (message.content or '') | trim) | trim }}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length > 1 %}
            {{- raise_exception('Llama 3.1 writes one tool call per message.') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|python_tag|>{"type": "function", "name": ' + call.name | tojson + ', "parameters": ' }}
        {{- call.arguments if call.arguments is string else call.arguments | tojson }}
        {{- '}<|eom_id|>' }}
    {%- else %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

CHAT_TEMPLATE = _TEMPLATE.replace("PREAMBLE", json.dumps(TOOLS_PREAMBLE))
