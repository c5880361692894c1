"""How texts are cut into words before byte-level BPE: the rules that GGUF files name."""

from dataclasses import dataclass

from pd_core.errors import ModelError

__all__ = ["SplitRule", "split_rule"]

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """One rule.

    Attributes:
        patterns: regular expressions, each applied to what the one before it left; every match and
            everything between matches becomes a word.
        composed: texts are brought into Unicode's form NFC first.
        whole_words: a word that is a token becomes this token without merges.
        adds_bos: a text begins with the token for its beginning, unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    composed: bool = False
    whole_words: bool = False
    adds_bos: bool = False


_DIGITS = SplitRule((r"\p{N}", _GPT2))
_PLAIN = SplitRule((_GPT2,))
_LLAMA = SplitRule((_LLAMA3,), whole_words=True, adds_bos=True)
_QWEN = SplitRule((_QWEN2,), composed=True)
_RULES = {
    # llama.cpp's own, for files that name none.
    "default": SplitRule((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"), _PLAIN),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), _LLAMA),
    **dict.fromkeys(("dbrx", "smaug-bpe"), SplitRule((_LLAMA3,))),
    "qwen2": _QWEN,
    **dict.fromkeys(("deepseek-r1-qwen", "megrez"), SplitRule((_QWEN2,))),
    "tekken": SplitRule((_TEKKEN,), whole_words=True, adds_bos=True),
}


def split_rule(name: str) -> SplitRule:
    """Return a rule by the name that llama.cpp gives it.

    Raises:
        ModelError: the name is not known.
    """
    if (rule := _RULES.get(name)) is not None:
        return rule
    raise ModelError(
        f"its texts are cut into words by the rule {name[:40]!r}, which is not known; known are "
        f"{', '.join(_RULES)}; use the Hugging Face directory that the file was made from"
    )
