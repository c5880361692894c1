"""Chat templates in the shapes that model families use: the text that transformers makes of them.

The shapes are written from what is publicly known of the families' formats, each with the filters,
methods and statements that its family's template leans on.
"""

import json
from typing import Any

import pytest

from pd_core.errors import InvalidRequest
from pd_core.text.chat_template import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather <now> & then.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where é", "enum": ["Bonn", "Ulm"]},
                    "days": {"type": ["integer", "null"], "default": 1},
                },
                "required": ["city"],
            },
        },
    }
]
CALL = {"id": "call12345", "function": {"name": "get_weather", "arguments": {"city": "Bonn"}}}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": "  Wie geht es dir? <é> \n"}],
    "system": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": "Say 2 < 3 & 'four'"},
    ],
    "turns": [
        {"role": "system", "content": "You count."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n two "},
        {"role": "user", "content": "three\nand four"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": ""},
    ],
    "tools": [
        {"role": "user", "content": "Weather in Bonn?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "get_weather", "content": '{"sky": "blue"}'},
        {"role": "tool", "name": "get_weather", "content": "12 C"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ],
}

SHAPES = {
    "ChatML": """{% for m in messages %}{% if loop.first and m['role'] != 'system' %}
{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}
{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | string + '<|im_end|>' + '\\n' }}
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "Zephyr": """{% for m in messages %}
{% if m.role in ['user', 'system'] %}
{{ '<|' ~ m.role ~ '|>\\n' + m.content|string + eos_token }}
{% elif m.role == 'assistant' %}
{{ '<|assistant|>\\n' ~ m.content ~ eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
{% endfor %}""",
    "Llama 3": """{{- bos_token }}{% set first = messages[0] %}
{%- if first.role == 'system' %}
  {%- set said = first['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set said = '' %}{%- endif %}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}{%- set date_string = strftime_now('%Y') | length %}
  {%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' ~ date_string ~ '\\n\\n' }}
{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}
{%- endfor %}{%- endif %}
{{- said + '<|eot_id|>' }}
{%- for m in messages %}
  {%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}
    {{- m['content'] | trim + '<|eot_id|>' }}
  {%- elif 'tool_calls' in m %}
    {%- if not m.tool_calls | length == 1 %}{{- raise_exception('one call only') }}{%- endif %}
    {%- set call = m.tool_calls[0].function %}
    {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}' }}
    {%- for k, v in call.arguments | items %}{{- k + '="' + v + '"' }}
      {%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}
  {%- elif m.content is mapping or m.content is iterable %}{{- m.content | tojson }}
  {%- else %}{{- m.content }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""",
    "Qwen 3": """{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- if tools %}{{- '# Tools\\n<tools>' }}{%- for t in tools %}{{- '\\n' }}{{- t | tojson }}
{%- endfor %}{{- '\\n</tools>' }}{%- endif %}
{%- for m in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
  {%- if ns.multi and m.role == 'user' and m.content is string
    and not (m.content.startswith('<r>') and m.content.endswith('</r>')) %}
    {%- set ns.multi = false %}{%- set ns.last = index %}
  {%- endif %}
{%- endfor %}
{%- for m in messages %}
  {%- if m.content is string %}{%- set content = m.content %}
  {%- else %}{%- set content = '' %}{%- endif %}
  {%- if m.role == 'assistant' %}
    {%- set why = '' %}
    {%- if m.reasoning_content is string %}{%- set why = m.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set why = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last and (loop.last or why) %}{{- why.strip('\\n') }}{%- endif %}
    {{- content }}
    {%- for call in m.tool_calls %}{%- set call = call.function or call %}
      {{- call.name }}
      {%- if call.arguments is string %}{{- call.arguments }}
      {%- else %}{{- call.arguments | tojson }}{%- endif %}
    {%- endfor %}
  {%- elif m.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<u>' }}{%- endif %}
    {{- content }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '</u>' }}{%- endif %}
  {%- else %}{{- '<' + m.role + '>' + content }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<a>' }}
  {%- if enable_thinking is defined and enable_thinking is false %}{{- 'no' }}{%- endif %}
{%- endif %}""",
    "Mistral": """{%- if messages[0]['role'] == 'system' %}
  {%- set said = messages[0]['content'] %}{%- set rest = messages[1:] %}
{%- else %}{%- set rest = messages %}{%- endif %}
{%- set users = rest | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(index=0) %}
{%- for m in rest if not (m.role == 'tool' or m.tool_calls is defined) %}
  {%- if (m.role == 'user') != (ns.index % 2 == 0) %}
    {{- raise_exception('roles must alternate') }}{%- endif %}
  {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for m in rest %}
  {%- if m.role == 'user' %}
    {%- if tools is not none and (m == users[-1]) %}{{- '[AVAILABLE_TOOLS] [' }}
      {%- for t in tools %}{%- set t = t.function %}{{- '{"type": "function", "function": {' }}
        {%- for k, v in t.items() if k != 'return' %}
          {%- if v is string %}{{- '"' + k + '": "' + v + '"' }}
          {%- else %}{{- '"' + k + '": ' + v | tojson }}{%- endif %}
          {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}{{- '}}' }}
        {%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' }}{%- endif %}
      {%- endfor %}{{- '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {%- if loop.last and said is defined %}{{- '[INST] ' + said + '\\n' + m.content + '[/INST]' }}
    {%- else %}{{- '[INST] ' ~ m.content ~ '[/INST]' }}{%- endif %}
  {%- elif m.tool_calls is defined and m.tool_calls is not none %}
    {%- for call in m.tool_calls %}{%- set out = call.function | tojson %}{{- out[:-1] }}
      {%- if not call.id is defined or call.id | length != 9 %}
        {{- raise_exception('an id has nine characters') }}{%- endif %}
      {{- ', "id": "' + call.id + '"}' }}{%- endfor %}
  {%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + eos_token }}
  {%- else %}{{- '[TOOL_RESULTS] {"content": ' + m.content | string + '}' }}{%- endif %}
{%- endfor %}""",
    "Gemma": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
  {%- if messages[0]['content'] is string -%}{%- set prefix = messages[0]['content'] + '\n\n' -%}
  {%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}
  {%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for m in loop_messages -%}
  {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('Conversation roles must alternate') }}{%- endif -%}
  {%- set role = 'model' if (m['role'] == 'assistant') else m['role'] -%}
  {{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') }}
  {%- if m['content'] is string -%}{{ m['content'] | trim }}
  {%- elif m['content'] is iterable -%}
    {%- for item in m['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image>' }}
    {%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
  {%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}
  {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}""",
    "Phi": """{% for m in messages %}
{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not none %}{{ m['tools'] }}
{% else %}{{ '<|' + m['role'] + '|>' + m['content']|join('') + '<|end|>' }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "DeepSeek": """{% if not add_generation_prompt is defined %}
{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=true, is_tool=false, said='') %}
{%- for m in messages %}{%- if m['role'] == 'system' %}
  {%- if ns.is_first %}{% set ns.said = ns.said + m['content'] %}{% set ns.is_first = false %}
  {%- else %}{% set ns.said = ns.said + '\\n\\n' + m['content'] %}{%- endif %}
{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.said }}
{%- for m in messages %}
  {%- if m['role'] == 'user' %}{%- set ns.is_tool = false -%}{{ '<|User|>' ~ m['content'] }}
  {%- endif %}
  {%- if m['role'] == 'assistant' and 'tool_calls' in m %}{%- set ns.is_tool = false -%}
    {%- for call in m['tool_calls'] %}
    {{- call['function']['name'] + '\\n```json\\n' + call['function']['arguments']|tojson + '```' }}
    {%- endfor %}
  {%- elif m['role'] == 'assistant' and m['content'] is not none %}
    {% set content = m['content'] %}
    {% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
    {{ '<|Assistant|>' + content + eos_token }}
  {%- endif %}
  {%- if m['role'] == 'tool' %}{%- set ns.is_tool = true -%}{{ '<out>' + m['content'] }}{%- endif %}
{%- endfor -%}
{% if ns.is_tool %}{{ '</outs>' }}{% endif %}
{% if add_generation_prompt and not ns.is_tool %}{{ '<|Assistant|>' }}{% endif %}""",
    "Hermes": """{%- macro kind(spec) %}
  {%- set kinds = {'string': 'str', 'integer': 'int', 'array': 'list'} %}
  {%- if spec.type is string and spec.type in kinds %}{{- kinds[spec.type] }}
  {%- elif spec.type is iterable and spec.type is not string %}
    {{- 'Union[' ~ spec.type | map('upper') | join(',') ~ ']' }}
  {%- else %}{{- 'Any' }}{%- endif %}
{%- endmacro %}
{{- bos_token }}
{%- if tools is iterable and tools | length > 0 %}
  {%- for t in tools %}{%- set t = t.function if t.function is defined else t %}
    {{- '{"name": ' + t.name | tojson + ', "signature": "' + t.name + '(' }}
    {%- for name, spec in t.parameters.properties | items %}
      {{- name + ': ' + kind(spec) }}{%- if spec.default is defined %}{{- '=' ~ spec.default }}
      {%- endif %}{%- if not loop.last %}{{- ', ' }}{%- endif %}
    {%- endfor %}{{- ')"' }}
    {{- ', "about": ' ~ (t.description ~ '\\n') | tojson ~ '}' }}
    {{- t.parameters.properties | dictsort | map('first') | list | tojson(sort_keys=true) }}
  {%- endfor %}
{%- endif %}
{%- for m in messages %}
  {{- '<|im_start|>' + m.role }}
  {%- if m.tool_calls is defined %}{%- for call in m.tool_calls %}
    {{- '\\n<tool_call>\\n' ~ call.function | tojson(indent=2) | indent(1) ~ '\\n</tool_call>' }}
  {%- endfor %}
  {%- elif m.role == 'tool' %}{{- '\\n<tool_response>\\n' + m.content }}
  {%- else %}{{- '\\n' }}{{- m.content if m.content is string else m.content | tojson }}{%- endif %}
  {{- '<|im_end|>\\n' }}
{%- endfor %}""",
    "Command R": """{{ bos_token }}{% set said = namespace(text='') %}
{% for m in messages if m.role == 'system' %}{% set said.text = m.content %}{% endfor %}
{% if documents %}{{ documents | length }}{% endif %}
{{ '<|SYSTEM|>' ~ (said.text or 'You are Command.') }}
{% macro about(spec, required) -%}
  {{ spec.description | default('', true) | replace('é', 'e') }}{% if not required %}?{% endif %}
{%- endmacro %}
{% for t in tools or [] %}```python
def {{ t.function.name }}({% for n, s in t.function.parameters.properties.items() -%}
{{ n }}: {{ s.type if s.type is string else 'Optional[' ~ s.type[0] ~ ']' }}
{%- if not loop.last %}, {% endif %}{% endfor %}):
    \"\"\"{{ t.function.description | capitalize | wordwrap(20) }}
{% for n, s in t.function.parameters.properties.items() %}
    {{ n.ljust(8) }}: {{ about(s, n in t.function.parameters.required) }}
{% endfor %}```{% endfor %}
{% for m in messages %}{% if m.role == 'user' %}<|USER|>{{ m.content }}
{%- elif m.role == 'assistant' %}<|CHATBOT|>{{ m.content | string | trim }}{% endif %}{% endfor %}
{% if add_generation_prompt %}<|CHATBOT|>{% endif %}""",
    "SmolLM 2 and 3": """{% set thinks = enable_thinking | default(true) %}
{%- if messages[0].role == 'system' -%}
  {%- set text = messages[0].content -%}
  {%- if '/no_think' in text -%}{%- set thinks = false -%}{%- endif -%}
  {%- set text = text.replace('/no_think', '').replace('/think', '').rstrip() -%}
{%- endif -%}
{% generation %}{{ '<|im_start|>system\\nReasoning: ' ~ ('on' if thinks else 'off') }}
{% set inside = 1 %}{% endgeneration %}{{ inside is defined }}
{{ text | default('You are SmolLM.') }}
{% for m in messages %}{% if loop.index > 4 %}{% break %}{% endif %}
{% if m.role == 'system' %}{% continue %}{% endif %}
{%- set content = m.content if m.content is string else
  m.content | selectattr('type', 'eq', 'text') | map(attribute='text') | join('|') -%}
{{ loop.cycle('a', 'b') }} {{ loop.previtem.role if loop.previtem is defined }} {{ content }}
{% endfor %}""",
    "filters": """{% set n = 3.14159 %}{{ n | round(2) }} {{ 7 | round }} {{ [1, 2.5] | sum }}
{{ 'ab' | center(9) }}| {{ '%s-%05.1f' | format('x', n) }} {{ '%d of %s' % (3, 'q') }}
{{ 'a long text of words' | truncate(10) }} {{ 'a b c' | wordcount }} {{ 'x' | urlencode }}
{% for row in [1, 2, 3, 4, 5] | batch(2, '-') %}{{ row | join(',') }};{% endfor %}
{% for col in [1, 2, 3] | slice(2) %}{{ col | list | length }};{% endfor %}
{% for g in messages | groupby('role') %}{{ g.grouper }}={{ g.list | length }} {% endfor %}
{{ 'a'.ljust(3, '.') ~ 'b'.rjust(3) ~ '7'.zfill(3) ~ 'c'.center(5, '*') }}
{{ '{} {:>4} {x}'.format(1, 'a', x=2) }} {{ 'a\\tb'.expandtabs(4) }} {{ 'aB'.swapcase() }}
{{ 'abc' | reverse }} {{ [3, 1, 2] | sort(reverse=true) }} {{ {'b': 1, 'a': [2, none]} }}
{{ messages | map(attribute='role') | list }} {{ (1, 2) }} {{ [1, 2] | first }} {{ none }}
{{ '<b>' | escape }} {{ '<b>' | forceescape }} {{ '<i>a</i>' | striptags }} {{ 'x' | safe | e }}
{{ 2 ** 5 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 1e3 | int }} {{ '0x1f' | int(base=16) }}
{{ 1234 | filesizeformat }}
{{ dict(a=1) | xmlattr }} {{ dict(a=1).get('b', 'c') }} {{ range(3) | list }}
{{ 'aXb'.partition('X') }}
{{ [1, [2]] | pprint }} {{ 'abc'[::-1] }} {{ 'é'.encode('utf-8') | length }} {{ 'a' in 'abc' }}
{{ messages | rejectattr('role', 'in', ['user']) | list | length }} {{ [1, 2] | min }} {{ 1 | abs }}
{% filter upper %}in a block{% endfilter %} {% set cap %}capt{% endset %}{{ cap | title }}
{% with a = 1 %}{{ a }}{% endwith %} {{ joiner is defined }}
{% call(x) each() %}{{ x }}{% endcall %}
""".replace(
        "{% set n", "{% macro each() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}{% set n", 1
    ),
}


def theirs(shape: str, chat: str, tools: list[dict[str, Any]] | None, add: bool) -> str | None:
    """What transformers makes of a chat; None: it refuses it."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    try:
        texts, _ = utils.render_jinja_template(
            [CHATS[chat]],
            tools=tools,
            chat_template=SHAPES[shape],
            add_generation_prompt=add,
            **TOKENS,
        )
    except Exception:
        return None
    return str(texts[0])


def ours(
    template: ChatTemplate, chat: str, tools: list[dict[str, Any]] | None, add: bool
) -> str | None:
    try:
        return template.render(CHATS[chat], tools=tools, add_generation_prompt=add)
    except InvalidRequest:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_text_is_that_of_transformers(shape: str) -> None:
    template = ChatTemplate(SHAPES[shape], TOKENS)
    rendered = 0
    for chat in CHATS:
        for tools in (None, TOOLS):
            for add in (True, False):
                expected = theirs(shape, chat, tools, add)
                assert ours(template, chat, tools, add) == expected, chat
                rendered += expected is not None
    assert rendered >= 12, "nearly every family takes nearly every chat"


def test_shapes_are_distinct_programs() -> None:
    """The list would prove little if its templates used the same few things."""
    assert len({json.dumps(sorted(set(text.split()))) for text in SHAPES.values()}) == len(SHAPES)
