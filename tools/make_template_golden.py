#!/usr/bin/env python3
"""Chat templates in the style of real model families, and small expressions, with what jinja2 makes of
them when it is set up as `transformers` does it.

    python3 tools/make_template_golden.py > tests/data/templates.json

needs `jinja2` from PyPI. An entry without "output" is one that jinja2 refuses too.
"""
import datetime
import json

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1764000000  # what strftime_now shows, UTC


class Generation(Extension):
    """transformers' {% generation %}: marks what the assistant writes; prints it as it is."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def strftime_now(fmt):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(fmt)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = strftime_now

TEMPLATES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "chatml-default-system": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helper.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "llama3.1-tools": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message may be missing. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Given the following functions, respond with a JSON for a function call.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "mistral-tools": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id|default('none00000', true) + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
""",
    "qwen2.5-tools": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions.\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3-thinking": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system") %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "phi3": """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "vicuna": """{%- if messages[0].role == 'system' -%}
{{ messages[0].content ~ ' ' }}
{%- set messages = messages[1:] -%}
{%- endif -%}
{% for m in messages -%}
  {% if m.role == 'user' %}USER: {{ m.content | trim }} {% elif m.role == 'assistant' %}ASSISTANT: {% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}ASSISTANT:{% endif %}""",
    "command-style": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are a large model.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}""",
    "deepseek-style": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<|Assistant|><|tool_calls_begin|>' + tool['type'] + '\\n' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments']|tojson + '\\n```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['type'] + tool['function']['name']}}{%- endif %}{%- endfor %}{{'<|tool_calls_end|>'}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + '<|end|>'}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<|tool_outputs_begin|>' + message['content']|string + '<|tool_output_end|>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' + message['content']|string}}{%- endif %}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|>'}}{% endif %}""",
    "hermes-macros": """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
{{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
{{- "list[" +  json_to_python_type(json_spec['items']) + "]"}}
{%- elif json_spec.type == "object" %}
{%- if json_spec.additionalProperties is defined %}
{{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
{%- else %}
{{- "dict" }}
{%- endif %}
{%- elif json_spec.type is iterable and json_spec.type is not string %}
{{- "Union[" }}
{%- for t in json_spec.type %}
{{- json_to_python_type({"type": t}) }}
{%- if not loop.last %}
{{- "," }}
{%- endif %}
{%- endfor %}
{{- "]" }}
{%- else %}
{{- "Any" }}
{%- endif %}
{%- endmacro %}
{{- bos_token }}
{%- if tools %}
{%- for tool in tools %}
{%- set f = tool.function if tool.function is defined else tool %}
{{- '\\n' ~ f.name ~ '(' }}
{%- for param_name, param_fields in f.parameters.properties|items %}
{{- param_name + ": " + json_to_python_type(param_fields) }}
{%- if not loop.last %}
{{- ", " }}
{%- endif %}
{%- endfor %}
{{- ')' }}
{%- if f.parameters.required is defined %} needs {{ f.parameters.required | join(' and ') }}{% endif %}
{%- endfor %}
{%- endif %}
{%- for message in messages %}
{{- '\\n<|im_start|>' + message.role + '\\n' ~ (message.content or '') ~ '<|im_end|>' }}
{%- endfor %}
""",
    "granite-call-blocks": """{%- macro turn(role) -%}
<|start_of_role|>{{ role }}<|end_of_role|>{{ caller() | trim }}<|end_of_text|>
{% endmacro -%}
{%- for message in messages if message.content is string -%}
{%- call turn(message.role) -%}
  {{ message.content | indent(2) }}
{%- endcall -%}
{%- else -%}
nothing was said
{%- endfor -%}
{%- set footer -%}
{{ messages | length }} messages by {{ messages | map(attribute='role') | unique | sort | join(', ') }}
{%- endset -%}
{% filter upper %}{{ footer }}{% endfilter %}
{%- with a = 1, b = messages|length %}{{ a + b }}{% endwith -%}
{% raw %}{{ not evaluated }}{% endraw %}""",
}

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a place",
          "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Name, e.g. \"Zürich\""},
          "days": {"type": ["integer", "null"]}, "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["city"]}}},
         {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}}]}
BASE = {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None, "add_generation_prompt": True}
CONTEXTS = {
    "one": {**BASE, "messages": [{"role": "user", "content": "  Hello there \n"}]},
    "system": {**BASE, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
    "multi": {**BASE, "messages": [{"role": "system", "content": "S\u00fc\u00df \U0001f600"}, {"role": "user", "content": "a <b> 'c' \"d\""},
              {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.\nNo."}, {"role": "user", "content": "line one\nline two\n\nline four"}]},
    "closed": {**BASE, "add_generation_prompt": False, "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " y "}]},
    "tools": {**BASE, "tools": TOOLS, "messages": [{"role": "user", "content": "Weather?"}, CALL, {"role": "tool", "tool_call_id": "abcdef123", "content": "21 \u00b0C"}]},
    "parts": {**BASE, "enable_thinking": False, "messages": [{"role": "user", "content": [{"type": "text", "text": " look "}, {"type": "image"}]}]},
    "bad-order": {**BASE, "messages": [{"role": "assistant", "content": "I start"}, {"role": "assistant", "content": "again"}]},
}

EXPRESSIONS = """
1 + 2 * 3 - 4
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 / 2, 2 ** 10, 2 ** -1
1.5 + 1, 1e16, 1e15, 0.1 + 0.2, 1.0, 1e-5, 100000000000000000.0, -0.0
10 // 3.0, 10 % 3.5, -1.5 % 1
'a' ~ 1 ~ none ~ true ~ [1, 'x'] ~ {'k': 'v'}
'ab' * 3, [1] * 2, [1] + [2, 3], (1, 2) + (3,)
"it's", 'say "hi"', 'both \\' and "', 'tab\\tnew\\nline\\x41\\u00e9', '\\\\'
['it\\'s', "a\\nb", 'é', '\\u200b', 1.0, none, true, (1,), ()]
{'a': 1, 'b': [2, {'c': none}], 3: 'x'}
1 < 2 < 3, 1 < 3 < 2, 'a' < 'b', [1, 2] < [1, 3], 1 == 1.0, 'a' == 1, true == 1
not 1 == 2 and 3 or 4
none or 'x', '' or [] or 0, 1 and 2, 0 and 2
'b' in 'abc', 1 in [1, 2], 'k' in {'k': 1}, 4 not in [1]
'yes' if 1 > 0 else 'no', ('yes' if 0)
'hello'[0], 'hello'[-1], 'hello'[1:3], 'hello'[::-1], 'hello'[:-1], 'héllo'[1], [1, 2, 3, 4][1:], [1, 2, 3, 4][::2], [1, 2, 3][5:1:-1]
(1, 2, 3)[0], {'a': {'b': 5}}.a.b, {'a': [1, 2]}['a'][1], {'a': 1}.get('a'), {'a': 1}.get('b'), {'a': 1}.get('b', 7)
missing is defined, missing is undefined, x is defined, missing | default('d'), '' | default('d'), '' | default('d', true), none | d('n')
x.y is defined, x.y.z is defined
'%s and %d, %.2f %% %5s|%-5s|%05d' % ('a', 3, 2.5, 'r', 'l', 42)
"a,b,,c".split(','), " a  b ".split(), "a,b,c".split(',', 1), "a b c".rsplit(' ', 1), "x\\ny\\r\\nz".splitlines()
" pad ".strip() ~ '|' ~ " pad ".lstrip() ~ '|' ~ " pad ".rstrip() ~ '|' ~ "xxaxx".strip('x')
"Hello World".upper(), "Hello".lower(), "hello world".title(), "hELLO".capitalize(), "straße".upper()
"abcabc".replace('b', 'X'), "abcabc".replace('b', 'X', 1), "abc".replace('', '-')
"abc".startswith('ab'), "abc".endswith(('x', 'bc')), "abc".find('c'), "abc".find('z'), "abcabc".count('bc'), "abc".index('b')
"-".join(['a', 'b']), "k=v=w".partition('='), "k=v=w".rpartition('='), "prefix_x".removeprefix('prefix_'), "x.txt".removesuffix('.txt')
"12".isdigit(), "".isdigit(), "ab".isalpha(), "a1".isalnum(), " ".isspace(), "AB".isupper(), "ab".islower(), "a".zfill(3), "-7".zfill(4)
[3, 1, 2] | sort, [3, 1, 2] | sort(reverse=true), ['b', 'A', 'c'] | sort, ['b', 'A', 'c'] | sort(case_sensitive=true)
[1, 2, 3] | first, [1, 2, 3] | last, [] | first is defined, [1, 2, 3] | length, 'abc' | length, {'a': 1} | count
[1, 2, 3] | sum, [1, 2, 3] | min, [1, 2, 3] | max, [[1], [2]] | sum(start=[]) is defined
[1, 2, 3] | reverse | list, 'abc' | reverse, [1, 1, 2] | unique | list, ['a', 'A'] | unique | list
[1, 2, 3, 4] | select('even') | list, [1, 2, 3, 4] | reject('odd') | list, [0, 1, '', 'a'] | select | list
[{'a': 1}, {'a': 2}, {}] | selectattr('a') | list, [{'a': 1}, {'a': 2}] | selectattr('a', '>', 1) | list, [{'a': 1}, {'a': 2}] | rejectattr('a', 'eq', 1) | list
[{'a': {'b': 1}}, {'a': {'b': 2}}] | map(attribute='a.b') | list, ['a', 'b'] | map('upper') | join, [{'a': 1}, {}] | map(attribute='a', default=0) | list
['a', 'b'] | join(', '), [{'n': 1}, {'n': 2}] | join('-', attribute='n'), 'abc' | join('.')
'a b' | title, "it's a-test (of) title" | title, 'ABC' | lower, 'abc' | upper, 'aBC' | capitalize, '  x ' | trim, 'xxaxx' | trim('x')
'a\\nb\\n\\nc' | indent, 'a\\nb\\n\\nc' | indent(2, true), 'a\\nb\\n\\nc' | indent(2, blank=true), 'a\\nb' | indent('> ', true)
'hello world' | replace('o', '0'), 'hello' | replace('l', 'L', 1), 'abc' | list, {'b': 1, 'a': 2} | list
{'b': 1, 'a': 2} | dictsort, {'b': 1, 'a': 2} | dictsort(by='value'), {'b': 1, 'a': 2} | dictsort(reverse=true), {'b': 1} | items | list, {'a': 1}.items() | list, {'a': 1}.keys() | list, {'a': 1}.values() | list
'42' | int, 'x' | int, 'x' | int(-1), '4.7' | int, 4.7 | int, 'ff' | int(base=16), '1.5' | float, 'x' | float, 'x' | float(2.5)
2.5 | round, 3.5 | round, 2.567 | round(2), 2.1 | round(method='ceil'), 2.9 | round(0, 'floor'), 7 | round, -3 | abs, -2.5 | abs
[1, 2, 3, 4, 5] | batch(2) | list, [1, 2, 3] | batch(2, 'x') | list, [1, 2, 3, 4, 5] | slice(2) | list, [1, 2, 3] | slice(2, 'x') | list
('a < b & "c"' | escape) ~ 1, ('<x>' | e) ~ 1, ('safe' | safe) ~ 1, 'a b/c?d=é' | urlencode, 'one two  three' | wordcount, 'abc' | string, 5 | string
'foo bar baz qux' | truncate(9), 'foo bar baz qux' | truncate(9, true), 'foo bar baz qux' | truncate(11), 'foo bar baz qux' | truncate(11, false, '...', 0)
'ab' | center(7) ~ '|', 'abc' | center(8) ~ '|', 'ab' | center(1) ~ '|'
{'a': [1, 2.5, none, true, 'é"\\n'], 'b': {}} | tojson, [] | tojson, {'a': [1, {'b': 2}], 'c': []} | tojson(indent=2), {'b': 1, 'a': 2} | tojson(sort_keys=true), 'é😀' | tojson(ensure_ascii=true), [1, 2] | tojson(separators=(',', ':'))
1 is odd, 2 is even, 9 is divisibleby 3, 9 is divisibleby(4), 'a' is string, 1 is number, 1.0 is float, 1 is integer, true is boolean, true is integer, true is number
[] is sequence, {} is mapping, 'a' is iterable, 1 is iterable, none is none, x is none, 'A' is upper, 'a' is lower, 1 is sameas 1, 'a' is in ['a'], 3 is gt 2, 3 is le 2, 1 is eq 1, range is callable
range(3) | list, range(1, 7, 2) | list, range(3, 0, -1) | list, range(0) | list
dict(a=1, b=2), dict(a=1).a, namespace(a=1).a, namespace(a=1).b is defined
[1, [2, 3]][1][0], ('a', 'b') | join, (1,) | list, ((1, 2), 3)[0][1]
-1 | abs, (-1) | abs, -(3), +3, - 2 ** 2
"a" "b" 'c', 1_000, 0x1f, 0b11, 0o17
x.items() | list | length, x['list'][0], x.list[-1], x.none is none, x.nested.key
[x.a, x.b] | map('default', 0) | list, [3, 1] | map('string') | join('+'), ['1', '2'] | map('int') | sum
'a' in x, 'q' in x, x | length, x.list | length > 2 and x.list[0] == 1
not none, not [], not 'a', not x is defined, x is not none
{'a': 1} == {'a': 1}, [1] == [1], (1,) == [1], 'a' != 'b', 1 != 1.0
missing, [missing], missing ~ 'x', missing == none, missing | length
'x' if missing else 'y', missing or 'z', (missing | default([])) | length
[{'k': 'b', 'v': 1}, {'k': 'a', 'v': 2}, {'k': 'B', 'v': 3}] | groupby('k') | map('last') | map('length') | list
'%s' | format('x'), '%s-%s' | format(1, 'b')
cycler('a', 'b').next(), 'abc' | attr('upper') is callable, 'x' is filter, 'upper' is filter, 'odd' is test
none | map('upper') | list, none | select | list, 0 | reject | list, false | selectattr('a') | list, '' | rejectattr('a') | list, missing | map(attribute='a') | list
'a,b'.find('b', 1), 'abcabc'.find('a', 1), 'abcabc'.find('a', 1, 3), 'abcabc'.rfind('a', 0, 3), 'abc'.find('', 3), 'abc'.find('', 4), 'äöüä'.find('ä', 1), 'abc'.find('c', -1), 'abc'.find('a', -9, -2), 'abc'.find('b', none, 2)
'abc'.index('c', 1), 'abcabc'.rindex('b', 0, -2), 'abcabc'.count('b', 2), 'abcabc'.count('', 2, 4), 'abc'.count('', 4), 'aaaa'.count('aa', 1)
'abc'.startswith('b', 1), 'abc'.startswith(('x', 'c'), -1), 'abc'.endswith('b', 0, 2), 'abc'.endswith('', 4), 'abc'.startswith('', 3), 'abc'.startswith('ab', 0, 1)
'a b c'.rsplit(none, 1), ' a  b c '.rsplit(none, 1), ' a '.rsplit(none, 0), 'a b  c'.split(none, 1), 'a b  c '.split(maxsplit=1), ' a '.split(none, 0), 'aaa'.rsplit('aa', 1), 'a,b,c'.rsplit(',', 1), 'a,b,c'.rsplit(','), '   '.split(none, 1)
'{} {}'.format(1, 'a'), '{0}-{name}-{0}'.format(1, name='b'), '{{}} {}'.format([1, 'x']), '{}'.format(none), '{}'.format(1.0), '{a}{b}'.format(a=1, b=true)
x.big, x.big | tojson, [x.big], x.big == x.big, x.big > 1, x.big | int, x.big is integer, x.big is number, x.big ~ '', {x.big: 1}[x.big], x.big | string | length
1e22 | float, '1e3' | int, 'inf' | int, 'nan' | int(3), 9007199254740993 | int, '9223372036854775807' | int
2.5 is odd, 2.5 is even, 3.0 is odd, 4.0 is even, -3 is odd, true is odd, 7.5 is divisibleby 2.5, 7 is divisibleby(-1), x.big is divisibleby(3.5)
'abcabc'.index('a', 4)
'{} {}'.format(1)
'{} {0}'.format(1)
'{'.format(1)
'{x}'.format(1)
(x.big | float * 1e300) | int
'a' is odd
1 is divisibleby 0
none | sort
1 | map('upper') | list
missing.attribute
missing + 1
1 + 'a'
none.x.y
[1] | map('nothing') | list
1 / 0
[2, 1, 'a'] | sort
{'a': 1}.update({'b': 2})
[1].append(2)
raise_exception('told you')
undefined_function()
'abc'.nothing()
""".strip().split("\n")

BLOCKS = {
    "loop-variables": "{% for i in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }}{{ loop.changed(i) }}{{ loop.depth }};{% endfor %}",
    "loop-control": "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "loop-else-filter": "{% for i in [1, 2, 3, 4] if i > 9 %}{{ i }}{% else %}none{% endfor %}{% for i in [1, 2, 3, 4] if i is even %}{{ loop.index }}:{{ i }}{% endfor %}",
    "loop-unpack": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "loop-recursive": "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': [{'v': 4, 'c': []}]}]}] recursive %}[{{ n.v }}@{{ loop.depth }}{{ loop(n.c) }}]{% endfor %}",
    "scope": "{% set a = 1 %}{% for i in [1] %}{% set a = 2 %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set a = 3 %}{% endif %}{{ a }}{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "set-many": "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c %}x{{ a }}y{% endset %}{{ c }}{% set d | upper %}abc{% endset %}{{ d }}",
    "macros": "{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(b=5, a=4) }} {{ m.name }} {{ m() }}",
    "macro-call": "{% macro list(items) %}{% for i in items %}<{{ caller(i) }}>{% endfor %}{% endmacro %}{% call(x) list([1, 2]) %}{{ x * 2 }}{% endcall %}",
    "macro-global": "{% set g = 'global' %}{% macro m() %}{{ g }}{{ x.a }}{% endmacro %}{{ m() }}{% set g = 'later' %}{{ m() }}",
    "whitespace": "  {% if true %}\n    a\n  {% endif %}\n  {{ 1 }}  \n\n  {%- if true -%}  b  {%- endif %}\n{# comment #}\nc {#- x -#} d\n{%+ if true %}e{% endif +%}\nf\n",
    "whitespace-lines": "{% for i in [1, 2] %}\n  item {{ i }}\n    {% if i == 1 %}\n  one\n    {% endif %}\n{% endfor %}\nend\n\n",
    "comment-lines": "a\n  {# one #}\nb {# two #}\n{#- three #}\nc{# #}",
    "raw": "{% raw -%}  {{ x }} {% if %} {%- endraw %} done {% raw %}\n{# not #}\n{% endraw %}\n!",
    "filter-block": "{% filter upper | replace('A', '4') %}banana {{ 'split' }}{% endfilter %}",
    "with": "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "if-chain": "{% for i in range(4) %}{% if i == 0 %}zero{% elif i == 1 %}one{% elif i == 2 %}two{% else %}many{% endif %} {% endfor %}",
    "nested-quotes": "{{ \"a}}b\" }}{{ '{%' }}{{ {'a': {'b': 1}}['a'] }}{{ '}}' ~ \"'\" }}",
    "strftime": "{{ strftime_now('%Y-%m-%d %H:%M:%S %a %b %j') }}",
    "joiner": "{% set j = joiner(', ') %}{% for i in [1, 2, 3] %}{{ j() }}{{ i }}{% endfor %}",
    "crlf": "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc",
    "inline-if-filter": "{{ ('a' if x.a else 'b') | upper }}{{ x.list | map('string') | map('length') | sum }}{{ 'x' ~ ('y' | upper) ~ 'z' | upper }}",
    "comment-marks": "a {#-#} b {#- -#} c {#+#} d {#-+#} e\n  {#-#}\n f {# -#}  g {#--#}  h",
    "generation-scope": "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% set q = 3 %}{% endgeneration %}{{ a }}{{ q is defined }}{% for i in [1, 2] %}{% generation %}{{ loop.index }}{{ i }}{% endgeneration %}{% endfor %}",
    "spread": "{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2], c=3) }}{{ m(**{'a': 1, 'b': 2, 'c': 3}) }}",
}
BROKEN = ["{% if %}", "{{ 1 + }}", "{% for x in %}{% endfor %}", "{{ 'a }}", "{% endif %}", "{% if true %}", "{{ x | nosuchfilter }}",
          "{{ 1 is nosuchtest }}", "{% unknown %}", "{{ (1 }}", "{{ }}", "{# open", "{% macro %}{% endmacro %}", "{% set %}", "{{ a b }}", "{% break %}"]

X = {"a": 1, "list": [1, 2, 3], "none": None, "nested": {"key": "v\u00e4lue"}, "big": 12345678901234567890}


def entry(name, source, context):
    out = {"name": name, "template": source, "context": context}
    try:
        out["output"] = ENV.from_string(source).render(**json.loads(json.dumps(context)))
    except Exception as error:  # what jinja2 refuses must be refused
        out["refused"] = type(error).__name__ + ": " + str(error)
    return out


def main():
    entries = []
    for name, source in TEMPLATES.items():
        for kind, context in CONTEXTS.items():
            entries.append(entry(f"{name}/{kind}", source, context))
    for i, e in enumerate(EXPRESSIONS):
        # Each part alone, so that one that is refused hides no other.
        entries.append(entry(f"expression {i + 1}", "{{ " + e + " }}", {"x": X}))
    for name, source in BLOCKS.items():
        entries.append(entry(name, source, {"x": X}))
    for i, source in enumerate(BROKEN):
        e = entry(f"broken {i + 1}", source, {"x": X})
        assert "refused" in e, source
        entries.append(e)
    print(json.dumps({"now": NOW, "entries": entries}, ensure_ascii=True, indent=0))


main()
