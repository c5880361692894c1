"""The addresses of published traces, with size and checksum where known.

Sizes and checksums belong to exactly the files at these addresses, which name a commit. For a file
without them, the command prints the checksum it got.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pd_core.errors import ConfigError

__all__ = ["TRACE_SOURCES", "TraceSource", "trace_source"]

_RAW = "https://raw.githubusercontent.com/"
_LFS = "https://media.githubusercontent.com/media/"
_AZURE = _RAW + "Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08/data/"
_AZURE_2024 = "https://azurepublicdatasettraces.blob.core.windows.net/azurellminfererencetrace/"
_MOONCAKE = _RAW + "kvcache-ai/Mooncake/"
_BURST = "https://github.com/HPMLL/BurstGPT/releases/download/v1.2/"
_QWEN = "alibaba-edu/qwen-bailian-usagetraces-anon/"
_QWEN_LFS = _LFS + _QWEN + "0b4273a1d8a83935b9d9356e78f95c31f2ac64cf/"
_QWEN_RAW = _RAW + _QWEN + "main/"


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A published trace.

    Attributes:
        url: the file's address.
        home: its web page, to consult when the address no longer works.
        licence: its terms.
        size: bytes of the file; None when unknown.
        sha256: hex digest of the file; None when unknown.
    """

    url: str
    home: str
    licence: str
    size: int | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return urlsplit(self.url).path.rpartition("/")[2]


def _azure(name: str, size: int, sha256: str) -> TraceSource:
    home = "github.com/Azure/AzurePublicDataset"
    return TraceSource(f"{_AZURE}{name}", home, "CC-BY 4.0", size, sha256)


def _azure_2024(name: str) -> TraceSource:
    home = "github.com/Azure/AzurePublicDataset"
    return TraceSource(f"{_AZURE_2024}{name}", home, "CC-BY 4.0")


def _mooncake(
    name: str, commit: str, size: int | None = None, sha256: str | None = None
) -> TraceSource:
    url = f"{_MOONCAKE}{commit}/FAST25-release/traces/{name}"
    return TraceSource(url, "github.com/kvcache-ai/Mooncake", "Apache-2.0", size, sha256)


def _qwen(url: str, size: int | None = None, sha256: str | None = None) -> TraceSource:
    return TraceSource(url, f"github.com/{_QWEN[:-1]}", "Apache-2.0", size, sha256)


def _burst(name: str) -> TraceSource:
    return TraceSource(f"{_BURST}{name}", "github.com/HPMLL/BurstGPT", "CC-BY 4.0")


TRACE_SOURCES: dict[str, TraceSource] = {
    "azure-2023-code": _azure(
        "AzureLLMInferenceTrace_code.csv",
        320_117,
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
    ),
    "azure-2023-conv": _azure(
        "AzureLLMInferenceTrace_conv.csv",
        719_188,
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
    ),
    "azure-2024-code": _azure_2024("AzureLLMInferenceTrace_code_1week.csv"),
    "azure-2024-conv": _azure_2024("AzureLLMInferenceTrace_conv_1week.csv"),
    "burstgpt-1": _burst("BurstGPT_without_fails_1.csv"),
    "burstgpt-2": _burst("BurstGPT_without_fails_2.csv"),
    "burstgpt-3": _burst("BurstGPT_without_fails_3.csv"),
    "mooncake-conversation": _mooncake(
        "conversation_trace.jsonl",
        "a2a4b18ac537fd798d50e6e9f57031ce86419a37",
        3_029_533,
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
    ),
    "mooncake-synthetic": _mooncake(
        "synthetic_trace.jsonl",
        "3cca71daccf2a7afb8fe3f0295358f70e3a69fdb",
        1_136_313,
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
    ),
    "mooncake-toolagent": _mooncake(
        "toolagent_trace.jsonl", "3b5a594133958449a1feaf1c9e0fc1b553e34a28"
    ),
    "qwen-a": _qwen(f"{_QWEN_RAW}qwen_traceA_blksz_16.jsonl"),
    "qwen-b": _qwen(f"{_QWEN_RAW}qwen_traceB_blksz_16.jsonl"),
    "qwen-coder": _qwen(
        f"{_QWEN_LFS}qwen_coder_blksz_16.jsonl",
        132_054_902,
        "3d74974cebb7bccb69b1ca6ea210a44d9a3033443c0271ed015327284dea1aff",
    ),
    "qwen-thinking": _qwen(
        f"{_QWEN_LFS}qwen_thinking_blksz_16.jsonl",
        27_901_454,
        "41ac36d9d1b54d084eeb6b05e9d142ba9d02f8bf79cfc9fff418d8ab7cdee906",
    ),
}


def trace_source(name: str) -> TraceSource:
    """Return the source called `name`, or one for an address.

    Raises:
        ConfigError: `name` is neither; the message lists the names.
    """
    if name in TRACE_SOURCES:
        return TRACE_SOURCES[name]
    if name.startswith(("http://", "https://")) and not name.endswith("/"):
        place = urlsplit(name)  # without the query, which may hold a secret
        return TraceSource(name, f"{place.scheme}://{place.netloc}{place.path}", "see its home")
    raise ConfigError(
        f"no published trace is called {name!r}; known: {', '.join(sorted(TRACE_SOURCES))}, or an "
        "address that begins with https://"
    )
