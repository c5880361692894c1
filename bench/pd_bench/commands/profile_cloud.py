"""`pd-bench profile`: a running server into a cloud profile that `pd-bench simulate` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.harness.command_run import run_to_end
from pd_bench.results.result_file import result_file
from pd_core.files.api_key import read_api_key
from pd_device_client.cloud.address import CloudAddress

if TYPE_CHECKING:
    from rich.table import Table

    from pd_bench.simulation.cloud.cloud_measure import CloudMeasurement

__all__ = ["measurement_table", "profile"]


def profile(
    cloud: Annotated[str, typer.Option(help="HOST:PORT of a server that is otherwise idle.")],
    out: Annotated[Path, typer.Option(help="Write the profile here, as JSON.")] = Path(
        "cloud-profile.json"
    ),
    name: Annotated[str, typer.Option(help="The profile's name in tables.")] = "measured",
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=2, help="The server's token budget per step, if it has one.")
    ] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(min=64, help="Tokens its KV cache has room for, if few.")
    ] = None,
    max_prompt_tokens: Annotated[
        int, typer.Option(min=64, help="Longest prompt measured; as long as those to simulate.")
    ] = 4096,
    tls_ca: Annotated[Path | None, typer.Option(help="Authority to trust.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS, by the system's authorities.")] = False,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plaintext beyond this machine.")
    ] = False,
) -> None:
    """Measure a server's prefill, decode and round trip into a profile for simulations."""
    from pd_bench.simulation.cloud.cloud_measure import measure_cloud
    from pd_device_client.cloud.grpc_link import GrpcCloudLink

    key = None if api_key_file is None else read_api_key(api_key_file)
    access = CloudAddress(cloud, tls_ca, tls, key, insecure)
    with result_file(out, "--out") as write, Console(stderr=True).status("connecting") as status:

        async def measure() -> "CloudMeasurement":
            link = GrpcCloudLink.to(access)
            try:
                return await measure_cloud(
                    link,
                    name,
                    max_num_batched_tokens=max_num_batched_tokens,
                    kv_tokens=kv_tokens,
                    max_prompt_tokens=max_prompt_tokens,
                    tick=lambda what: status.update(f"measuring: {what}"),
                )
            finally:
                await link.close()

        found = run_to_end(measure())
        write(found.profile.model_dump_json(indent=2))
    Console().print(measurement_table(found))
    typer.echo(f"written to {out}; use it: pd-bench simulate TRACE --cloud-profile {out}")


def measurement_table(found: "CloudMeasurement") -> "Table":
    """Return the measured times beside those that the profile predicts."""
    from rich.table import Table

    profile = found.profile
    table = Table(title=f"{profile.name}: {profile.source}")
    for column in ("", "measured, ms", "profile, ms"):
        table.add_column(column, justify="right" if column else "left")
    chunk = profile.step_tokens()
    for sample in found.prefills:
        told_s = sum(
            profile.chunk_s(first, min(chunk, sample.tokens - first))
            for first in range(0, sample.tokens, chunk)
        )
        table.add_row(f"prefill of {sample.tokens}", _ms(sample.seconds), _ms(told_s))
    for step in found.decodes:
        what = f"decode of {step.streams}, {step.keys // step.streams} tokens each"
        told_s = profile.decode_step_s(step.streams, step.keys)
        table.add_row(what, _ms(step.seconds), _ms(told_s))
    table.add_row("card's round trip", _ms(found.rtt_s), "the link's")
    table.add_row("a message's way out", _ms(profile.message_s), "")
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
