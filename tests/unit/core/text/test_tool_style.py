"""How templates of different families take functions and calls, found out by rendering."""

import pytest

from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tool_style import ToolStyle
from tests.unit.core.text.test_template_shapes import SHAPES, TOKENS

OBJECTS = ToolStyle(True, null_content=True)
KNOWN = {
    "ChatML": ToolStyle(False),
    "Gemma": ToolStyle(False),
    "Llama 3": OBJECTS,
    "Qwen 3": OBJECTS,
    "Mistral": OBJECTS,
    "Hermes": OBJECTS,
}
CALLS = """{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}
{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
{{ m.content + '' }}{% for c in m.tool_calls or [] %}
{{ c['function']['name'] + '(' + c['function']['arguments'] + ')' }}{% endfor %}{% endfor %}"""


@pytest.mark.slow
@pytest.mark.parametrize("shape", KNOWN)
def test_families(shape: str) -> None:
    assert ChatTemplate(SHAPES[shape], TOKENS).tool_style() == KNOWN[shape]


def test_arguments_as_text_and_no_null() -> None:
    style = ChatTemplate(CALLS).tool_style()
    assert style == ToolStyle(True, text_arguments=True, null_content=False, knows_system=False)


def test_a_template_that_writes_arguments_as_python_does_gets_text() -> None:
    """A dictionary would be written with the wrong quotes."""
    style = ChatTemplate(
        CALLS.replace("+ c['function']['arguments'] +", "~ c.function.arguments ~")
    )
    assert style.tool_style().text_arguments


def test_values_of_the_request_reach_the_template_and_replace_none_of_its_own() -> None:
    template = ChatTemplate("{{ effort }}{{ messages[0].content }}{{ bos }}", {"bos": "<s>"})
    values = {"effort": "low", "messages": [], "bos": "no", "now": "no"}
    assert template.render([{"role": "user", "content": "x"}], values=values) == "lowx<s>"
