"""`pd-bench api` and `pd-bench turns`: what the device adds, and what it saves."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.harness.command_run import prepare
from pd_core.store.model_names import MODEL_HELP, RANDOM_TINY
from pd_device_client.planning.profiles import device_profile

__all__ = ["api", "turns"]


def api(
    pace: Annotated[
        float, typer.Option(min=0.001, max=60, help="Seconds between shown tokens.")
    ] = 0.02,
    tokens: Annotated[int, typer.Option(min=8, max=100_000, help="Tokens of each round.")] = 250,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds of each kind.")] = 4,
    chats: Annotated[
        int, typer.Option(min=1, max=10_000, help="Chats at once, against one device.")
    ] = 100,
    chat_tokens: Annotated[
        int, typer.Option(min=2, max=100_000, help="Tokens of each chat's answer.")
    ] = 32,
    json_out: JsonOut = None,
) -> None:
    """Measure what the device's HTTP API adds to a token, and how it bears many chats at once.

    A real cloud, a real `pd-device serve` in cloud-only mode; rounds of a
    bare session take turns with rounds over HTTP. Linux only.
    """
    prepare()
    from pd_bench.overhead.api_overhead import ApiSettings, api_tables, measure_api

    settings = ApiSettings(pace, tokens, rounds, chats, chat_tokens)
    with json_file(json_out) as write:
        found = run_measurement(lambda tick: measure_api(settings, tick))
        for table in api_tables(found, settings):
            Console().print(table)
        write({"settings": asdict(settings), "added": asdict(found.added), **asdict(found)})


def turns(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = RANDOM_TINY,
    profile: Annotated[
        str, typer.Option("--device-profile", help="What the device is slowed to.")
    ] = "slow",
    prompt_tokens: Annotated[
        int, typer.Option(min=2, help="Prompt tokens of the first turn.")
    ] = 2000,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = 64,
    words_tokens: Annotated[int, typer.Option(min=1, help="Tokens added in the second turn.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Conversations.")] = 3,
    json_out: JsonOut = None,
) -> None:
    """Measure how soon the device takes over in a conversation's second turn.

    A real cloud and a real engine, slowed to a profile. The aim is a fifth of
    the first turn's time.
    """
    prepare()
    from pd_bench.overhead.second_turn import TurnsSettings, measure_turns, turns_table

    settings = TurnsSettings(
        model,
        device_profile(profile),
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        words_tokens=words_tokens,
        rounds=rounds,
    )
    with json_file(json_out) as write:
        found = run_measurement(lambda tick: measure_turns(settings, tick))
        Console().print(turns_table(found, settings))
        write({"settings": asdict(settings), "rounds": [asdict(each) for each in found]})
