"""The chat format as a Jinja template, for programs that read our folders without herd (transformers, vLLM).

It writes what `herd.text.chat.encode_prompt` encodes, but as text: in those programs a user who types `<|eot_id|>`
makes a special token. Content is trimmed on both sides, as there.
"""

from __future__ import annotations

# Refused rather than dropped: several calls in one message, a list of tools (the format has no place for them but
# the text of a message), and roles that the model never saw.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- if tools %}
    {{- raise_exception('This format has no place for a tools list: describe the tools in the system message.') }}
{%- endif %}
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {%- if role not in ['system', 'user', 'assistant', 'ipython'] %}
        {{- raise_exception('Unknown role: ' + role) }}
    {%- endif %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
    {{- (message.content or '') | trim }}
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
