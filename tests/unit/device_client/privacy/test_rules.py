"""Rules for what stays on the device, as the settings give them."""

import pytest

from pd_core.errors import ConfigError
from pd_core.settings.composition import composed
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.privacy.rules import LocalOnlyRules


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"local_only_patterns": ("secret",)}, "NAME=REGEX"),
        ({"local_only_patterns": ("=x",)}, "NAME=REGEX"),
        ({"local_only_patterns": ("a\nb=x",)}, "NAME=REGEX"),
        ({"local_only_patterns": ("a=",)}, "0 characters"),
        ({"local_only_patterns": ("a=" + "x" * 1001,)}, "1001 characters"),
        ({"local_only_patterns": ("a=(",)}, "no regular expression"),
        ({"local_only_patterns": ("a=x*",)}, "found in every text"),
        ({"local_only_patterns": ("a=x", "a=y")}, "the same name"),
        ({"local_only_patterns": tuple(f"a{i}=x" for i in range(33))}, "more than 32"),
        ({"local_only_labels": ("two\nlines",)}, "a name has"),
    ],
)
def test_a_rule_that_is_none_is_refused_and_named(wrong: dict[str, tuple[str]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LocalOnlyRules(**wrong)  # type: ignore[arg-type]


def test_rules_come_from_the_settings() -> None:
    values = {
        "local_only_pattern": ("patients=patient=[0-9]+",),
        "local_only_label": ("health",),
        "local_only_above": 100,
    }
    rules = composed(DeviceSettings, values).promises.rules
    assert rules
    assert rules.patterns == {"patients": "patient=[0-9]+"}
    assert (rules.of_label("health"), rules.of_label("x")) == ("label health", "")
    assert (rules.of_label(None), LocalOnlyRules().of_label(None)) == ("", "")
    assert (rules.of_length(100), rules.of_length(101)) == ("", "more than 100 tokens")
    assert not LocalOnlyRules()
    assert LocalOnlyRules(local_only_above=0)
