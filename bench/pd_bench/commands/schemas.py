"""`pd-bench schemas`: answers to JSON schemas with the cloud cut anywhere."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.exactness.schema_settings import SchemaSettings
from pd_bench.harness.command_run import prepare
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["SchemasAsked", "schemas"]


@dataclass(frozen=True, slots=True)
class SchemasAsked:
    """Which answers to ask for, and where the result goes."""

    run: Annotated[SchemaSettings, Part()] = field(default_factory=SchemaSettings)
    json_out: JsonOut = None


def schemas(asked: SchemasAsked, _: Read) -> None:
    """Ask for answers to JSON schemas, cut the cloud anywhere, and see what comes.

    Uses a real server process and a real engine. Each answer is compared with the
    whole one of the cloud, and judged against its schema by another library.

    Example: pd-bench schemas --model smollm2-135m --answers 48 --json schemas.json

    Exit code 1 if an answer differs, or is complete and not of its schema.
    """
    prepare()
    from pd_bench.exactness.schema_answers import measure_schemas
    from pd_bench.exactness.schema_table import schema_table

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_schemas(settings, tick))
        Console().print(schema_table(found, settings))
        write({"settings": asdict(settings), **asdict(found)})
    count = found.answers
    if count.equal < count.answers or count.valid + count.unfinished < count.answers:
        raise typer.Exit(1)
