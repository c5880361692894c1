"""What a config.json says of quantised weights: which of compressed-tensors' schemes are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as _short  # a file may hold a value of megabytes
from typing import Any

from pd_core.errors import ModelError

__all__ = ["INT_FORMAT", "PACKED_FORMAT", "PackedScheme", "quantization_config", "read_schemes"]

INT_FORMAT = "int-quantized"
"""A weight in an int8, a scale for each row."""

PACKED_FORMAT = "pack-quantized"
"""Several weights in an int32."""

# What quantised checkpoints have in their config.json; "quantization" is MLX's.
_KEYS = ("quantization_config", "compression_config", "quantization")
_METHOD = "compressed-tensors"
_SUPPORTED = (
    "supported are compressed-tensors with symmetric whole numbers: int-quantized of 8 bits by "
    "rows, pack-quantized of 4 or 8 bits by rows or groups"
)


@dataclass(frozen=True, slots=True)
class PackedScheme:
    """How some layers' weights are stored.

    Attributes:
        format: "int-quantized" (int8) or "pack-quantized" (several in an int32).
        bits: 4 or 8.
        group: elements that share a scale; 0: a whole row does.
    """

    format: str
    bits: int
    group: int


def read_schemes(config: Mapping[str, Any]) -> tuple[PackedScheme, ...]:
    """Return the schemes of a config.json; none if the weights are plain.

    Raises:
        ModelError: the weights are quantised in a way that is not read; it is named.
    """
    found = [key for key in _KEYS if config.get(key) is not None]
    if not found:
        return ()
    key, how = found[0], config[found[0]]
    facts = how if isinstance(how, Mapping) else {}
    if facts.get("quant_method") != _METHOD:
        raise _refused(key, _told(facts))
    for name, wanted in (
        ("kv_cache_scheme", None),
        ("sparsity_config", {}),
        ("transform_config", {}),
    ):
        if facts.get(name) and facts[name] != wanted:
            raise _refused(key, f"{_METHOD} with a {name}")
    groups = facts.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise _refused(key, f"{_METHOD} without config_groups")
    return tuple(dict.fromkeys(_scheme(key, facts, group) for group in groups.values()))


def _scheme(key: str, facts: Mapping[str, Any], group: Any) -> PackedScheme:
    kind = group if isinstance(group, Mapping) else {}
    weights = kind.get("weights")
    if not isinstance(weights, Mapping):
        raise _refused(key, f"{_METHOD} with weights {_short(weights)}")
    stored = kind.get("format") or facts.get("format")
    if stored not in (INT_FORMAT, PACKED_FORMAT):
        raise _refused(key, f"{_METHOD}, format {_short(stored)}")
    bits, kinds = weights.get("num_bits"), (8,) if stored == INT_FORMAT else (4, 8)
    if type(bits) is not int or bits not in kinds or weights.get("type") != "int":
        raise _refused(key, f"{stored}, {_short(bits)} bits, type {_short(weights.get('type'))}")
    for name, wanted in (("symmetric", True), ("dynamic", False), ("actorder", None)):
        if (value := weights.get(name, wanted)) not in (wanted, None):
            raise _refused(key, f"{stored}, {name} {_short(value)}")
    inputs = kind.get("input_activations")
    if isinstance(inputs, Mapping) and inputs.get("dynamic") is not True:
        raise _refused(key, f"{stored}, activations that are not dynamic")
    strategy, size = weights.get("strategy"), weights.get("group_size")
    if strategy == "channel":
        return PackedScheme(stored, bits, 0)
    if strategy != "group" or stored == INT_FORMAT or type(size) is not int or size < 1:
        raise _refused(key, f"{stored}, strategy {_short(strategy)} of {_short(size)}")
    return PackedScheme(stored, bits, size)


def _told(facts: Mapping[str, Any]) -> str:
    found = [_short(facts[name]) for name in ("quant_method", "quant_type") if facts.get(name)]
    found += [f"{_short(facts[name])} {name}" for name in ("bits", "num_bits") if facts.get(name)]
    return ", ".join(found)


def _refused(key: str, said: str) -> ModelError:
    how = f"{key}, {said}" if said else key
    return ModelError(
        f"config.json: the weights are quantised ({how}), which is not supported; use the model "
        "that they were made from, whose weights are float32, bfloat16 or float16 (its model card "
        f"names it); {_SUPPORTED}"
    )


def quantization_config(layers: Mapping[PackedScheme, list[str]]) -> dict[str, Any]:
    """Return the content of `quantization_config` for a directory.

    Args:
        layers: the names of each scheme's layers, as "down_proj"; all have one format.
    """
    formats = {scheme.format for scheme in layers}
    assert len(formats) == 1, "readers of the format know one of a directory"
    groups = {}
    for i, (scheme, names) in enumerate(layers.items()):
        only = len(layers) == 1
        targets = ["Linear"] if only else [f"re:.*\\.({'|'.join(names)})$"]
        groups[f"group_{i}"] = {
            "targets": targets,
            "weights": _arguments(
                scheme.bits, "group" if scheme.group else "channel", scheme.group
            ),
            "input_activations": (
                _arguments(8, "token", 0) | {"dynamic": True, "observer": None}
                if scheme.format == INT_FORMAT
                else None
            ),
            "output_activations": None,
        }
    return {
        "quant_method": _METHOD,
        "format": formats.pop(),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _arguments(bits: int, strategy: str, group: int) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": strategy,
        "group_size": group or None,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
