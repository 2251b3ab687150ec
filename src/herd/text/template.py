"""The chat format as a Jinja template, for programs that read our folders without herd (transformers, vLLM).

It writes what `herd.text.tools.prepare` and `herd.text.chat.encode_prompt` write, but as text: in those programs a user
who types `<|eot_id|>` makes a special token. Arguments of `apply_chat_template` are those of `prepare`. A call's form
is the key "form" beside "function" (see `ToolCall`). Content is trimmed on both sides, as there. A tool's result that
is no text is written as JSON, as Hugging Face's templates do.
"""

from __future__ import annotations

import json

from herd.text.message import CODE_INTERPRETER, FORMS, SEARCHES
from herd.text.tools import ENVIRONMENT, FUNCTION_WORDS, JSON_WORDS

# Refused rather than dropped: several calls in one message, roles and forms that the model never saw, images.
_TEMPLATE = """\
{%- macro text_of(content, role) %}
    {%- if content is string %}
        {{- content }}
    {%- elif content is not defined or content is none %}
    {%- else %}
        {%- set listed = content is iterable and content is not mapping %}
        {%- set parts = content | selectattr('type', 'equalto', 'text') | list if listed else [] %}
        {%- if listed and parts | length == content | length and (parts or role != 'ipython') %}
            {{- parts | map(attribute='text') | join }}
        {%- elif role == 'ipython' %}
            {{- content | tojson }}
        {%- else %}
            {{- raise_exception('Content is text; that of a message of the ' + role + ' is not') }}
        {%- endif %}
    {%- endif %}
{%- endmacro %}
{{- bos_token }}
{%- set ns = namespace(head='', words='') %}
{%- if builtin_tools is defined and builtin_tools is not none or tools and not function_tags %}
    {%- set ns.head = ENVIRONMENT %}
{%- endif %}
{%- set ns.listed = [] %}
{%- for name in builtin_tools or [] %}
    {%- if name not in SEARCHES and name != CODE_INTERPRETER %}
        {{- raise_exception('No built-in tool: ' + name) }}
    {%- endif %}
    {%- if name != CODE_INTERPRETER %}
        {%- set ns.listed = ns.listed + [name] %}
    {%- endif %}
{%- endfor %}
{%- for line in [
    'Tools: ' + ns.listed | join(', ') if ns.listed else '',
    'Cutting Knowledge Date: ' + cutting_knowledge_date if cutting_knowledge_date else '',
    'Today Date: ' + date_string if date_string else ''
] %}
    {%- if line %}
        {%- set ns.head = ns.head + ('\\n' if ns.head else '') + line %}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {%- set ns.words = FUNCTION_WORDS if function_tags else JSON_WORDS %}
    {%- for tool in tools %}
        {%- set ns.words = ns.words + '\\n' + (tool.function if tool.function else tool) | tojson %}
    {%- endfor %}
    {%- if not tools_in_user_message %}
        {%- set ns.head = ns.head + ('\\n\\n' if ns.head else '') + ns.words %}
        {%- set ns.words = '' %}
    {%- endif %}
{%- endif %}
{%- macro user_words() %}
    {%- if ns.words %}
        {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' + ns.words | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endmacro %}
{%- if messages[0].role != 'system' %}
    {%- if ns.head %}
        {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + ns.head | trim + '<|eot_id|>' }}
    {%- endif %}
    {{- user_words() }}
{%- endif %}
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {%- if role not in ['system', 'user', 'assistant', 'ipython'] %}
        {{- raise_exception('Unknown role: ' + role) }}
    {%- endif %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
    {%- set content = text_of(message.content, role) | trim %}
    {%- if loop.first and role == 'system' and ns.head %}
        {%- set content = ns.head + '\\n\\n' + content %}
    {%- endif %}
    {%- set content = content | trim %}
    {{- content }}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length > 1 %}
            {{- raise_exception('Llama 3.1 writes one tool call per message.') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function or message.tool_calls[0] %}
        {%- if call.arguments is not mapping %}
            {{- raise_exception('The arguments of a tool call are an object, not text: parse them first') }}
        {%- endif %}
        {%- set form = message.tool_calls[0].form or 'json' %}
        {%- set given = call.arguments | list %}
        {%- if form not in FORMS %}
            {{- raise_exception('Unknown form of a tool call: ' + form) }}
        {%- endif %}
        {%- if call.name in SEARCHES and given == ['query'] and call.arguments.query is string %}
            {{- '<|python_tag|>' + call.name + '.call(query=' + call.arguments.query | tojson + ')<|eom_id|>' }}
        {%- elif call.name == CODE_INTERPRETER and given == ['code'] and call.arguments.code is string %}
            {{- '<|python_tag|>' + call.arguments.code + '<|eom_id|>' }}
        {%- else %}
            {{- '<|python_tag|>' if form == 'json' else '\\n\\n' if content }}
            {%- set arguments = call.arguments | tojson %}
            {%- if form == 'function' %}
                {{- '<function=' + call.name + '>' + arguments + '</function>' }}
            {%- else %}
                {{- '{"type": "function", "name": ' + call.name | tojson + ', "parameters": ' + arguments + '}' }}
            {%- endif %}
            {{- '<|eom_id|>' if form == 'json' else '<|eot_id|>' }}
        {%- endif %}
    {%- else %}
        {{- '<|eot_id|>' }}
    {%- endif %}
    {%- if loop.first and role == 'system' %}
        {{- user_words() }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def _filled(template: str) -> str:
    values = {
        "ENVIRONMENT": ENVIRONMENT,
        "FUNCTION_WORDS": FUNCTION_WORDS,
        "JSON_WORDS": JSON_WORDS,
        "SEARCHES": SEARCHES,
        "CODE_INTERPRETER": CODE_INTERPRETER,
        "FORMS": FORMS,
    }
    for name, value in values.items():
        template = template.replace(name, json.dumps(value))
    return template


CHAT_TEMPLATE = _filled(_TEMPLATE)
