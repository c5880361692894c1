"""Requests that stay on the device: a cloud counts what it receives, and it receives nothing."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from pd_device_client.api.completions.parameters import ChatParameters
from pd_device_client.api.completions.privacy import judged
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.privacy import KeptBy
from pd_device_client.device.cloud_use import CloudUse
from pd_device_client.planning.cloud_allowance import CloudCaps
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.privacy.rules import LocalOnlyRules
from tests.api_server import ROLES, ApiServer, api_server, loaded_model, scripted_cloud
from tests.http_client import http
from tests.scripted_cloud import Script, ScriptedCloud

SLOW = SpeedProfile("slow", "a test", 1 / 200, 0.003)
RULES = LocalOnlyRules(
    local_only_patterns=("patients=(?i)patient number [0-9]+",),
    local_only_labels=("health",),
    local_only_above=60,
)
Messages = list[dict[str, Any]]


@contextmanager
def device(**options: Any) -> Iterator[tuple[ApiServer, ScriptedCloud]]:
    """A chat model that is so slow that every free answer is begun by the cloud."""
    cloud = scripted_cloud()
    cloud.script = Script(first_token_s=0.01, step_s=0.001)
    with api_server(cloud=cloud, profile=SLOW, loaded=loaded_model(ROLES), **options) as server:
        yield server, cloud


def ask(server: ApiServer, path: str, body: dict[str, Any], **pd: Any) -> httpx.Response:
    whole = {"max_tokens": 4, "ignore_eos": True, "pd": pd, **body}
    done = http.post(f"{server.url}/v1/{path}", json=whole, timeout=60)
    assert done.status_code == 200, done.text
    return done


def chat(server: ApiServer, messages: Messages, **pd: Any) -> dict[str, Any]:
    done = ask(server, "chat/completions", {"messages": messages}, **pd)
    return dict(done.json()["choices"][0])


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("pd", [{"local_only": True}, {"privacy": "local-only"}])
def test_a_request_that_says_so_and_its_later_turns_are_not_sent(pd: dict[str, Any]) -> None:
    with device() as (server, cloud):
        first = chat(server, [user("Who am I?")], **pd)
        assert first["pd"]["privacy"] == {
            "local_only": True,
            "by": "request",
            "rule": None,
            "words": "kept on this device, as the request says",
        }
        turns = [user("Who am I?"), first["message"], user("And you?")]
        system = {"role": "system", "content": "It is five o'clock."}
        for messages in (turns, [system, *turns], [user("Who am I?")]):
            report = chat(server, messages)["pd"]
            assert report["privacy"]["by"] == "conversation"
            assert report["cloud"]["sent"] is False
            assert report["cloud"]["reason"] == "privacy"
            assert report["made_by"] == [{"side": "device", "from": 0, "until": 4}]
        assert (cloud.starts, cloud.made) == ([], 0)
        free = chat(server, [user("Who are you?")])["pd"]
        assert free["privacy"]["local_only"] is False
        assert free["cloud"]["sent"] is True
        assert len(cloud.starts) == 1


def test_a_conversation_with_an_id_stays_here_whatever_its_turns_say() -> None:
    with device() as (server, cloud):
        chat(server, [user("One")], local_only=True, conversation="c")
        kept = chat(server, [user("Two, and what came before is cut off")], conversation="c")
        assert kept["pd"]["privacy"]["by"] == "conversation"
        assert cloud.starts == []
        chat(server, [user("Two, and what came before is cut off")], conversation="d")
        assert cloud.starts == [], "these words stayed here before"
        chat(server, [user("Three")], conversation="e")
        assert len(cloud.starts) == 1


def test_rules_keep_what_they_are_for_and_name_themselves() -> None:
    with device(rules=RULES) as (server, cloud):
        private: list[tuple[str, Messages, dict[str, Any]]] = [
            ("patients", [user("About Patient Number 7.")], {}),
            ("patients", [user("Hello"), {"role": "system", "content": "patient number 8"}], {}),
            ("patients", [user([{"type": "text", "text": "patient number 9"}])], {}),  # type: ignore[arg-type]
            ("label health", [user("What is this rash?")], {"label": "health"}),
            ("more than 60 tokens", [user("long " * 60)], {}),
        ]
        for rule, messages, pd in private:
            report = chat(server, messages, **pd)["pd"]
            assert (report["privacy"]["by"], report["privacy"]["rule"]) == ("rule", rule)
            assert report["notes"][0] == f'kept on this device by the rule "{rule}"'
            later = [*messages, {"role": "assistant", "content": "."}, user("More?")]
            again = chat(server, later)["pd"]["privacy"]
            assert again["local_only"], again
        assert (cloud.starts, cloud.made) == ([], 0)
        assert chat(server, [user("About patients.")], label="sport")["pd"]["cloud"]["sent"]


def test_prompts_of_every_form_are_tested() -> None:
    text = "patient number 12"
    with device(rules=RULES) as (server, cloud):
        ids = http.post(f"{server.url}/tokenize", json={"prompt": text}).json()["tokens"]
        for prompt in (text, ids, ["a", text], [[1, 2], ids]):
            done = ask(server, "completions", {"prompt": prompt}).json()
            told = [choice["pd"]["privacy"]["local_only"] for choice in done["choices"]]
            assert all(told), "one private prompt keeps all of the request"
        assert cloud.starts == []


def test_a_mode_does_not_go_around_a_rule_and_a_contradiction_is_refused() -> None:
    with device(rules=RULES) as (server, cloud):
        report = chat(server, [user("patient number 1")], mode="cloud-only")["pd"]
        assert report["mode"] == "device-only"
        body = {"messages": [user("x")], "pd": {"local_only": True, "mode": "cloud-only"}}
        done = http.post(f"{server.url}/v1/chat/completions", json=body)
        assert done.status_code == 400
        assert "local-only" in done.json()["error"]["message"]
        assert cloud.starts == []


def test_headers_say_it_before_the_answer() -> None:
    with device(rules=RULES) as (server, _):
        for stream in (False, True):
            for text, told in (("patient number 3", "local-only"), ("a guest", "cloud")):
                body = {"messages": [user(text)], "stream": stream}
                headers = ask(server, "chat/completions", body).headers
                assert headers["x-pd-privacy"] == told
        new, again = (
            ask(server, "chat/completions", {"messages": [user("patient number 4")]}).headers
            for _ in range(2)
        )
        assert new["x-pd-privacy-why"] == 'rule "patients"'
        assert again["x-pd-privacy-why"] == 'conversation "patients"'


def test_a_stream_tells_it_with_the_plan() -> None:
    with device(rules=RULES) as (server, _):
        body = {"messages": [user("patient number 3")], "stream": True}
        lines = ask(server, "chat/completions", body, events=True).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        plan = next(e["pd"] for e in events if e.get("pd", {}).get("event") == "plan")
        assert plan["privacy"]["rule"] == "patients"
        assert plan["cloud_reason"] == "privacy"


@pytest.mark.parametrize(
    ("pd", "param"),
    [
        ({"label": ""}, "pd.label"),
        ({"label": "x" * 65}, "pd.label"),
        ({"conversation": 7}, "pd.conversation"),
        ({"local_only": "yes"}, "pd.local_only"),
        ({"quality_floor": 0.0}, "pd.quality_floor"),
        ({"quality_floor": 1.5}, "pd.quality_floor"),
        ({"max_cloud_cost": -1}, "pd.max_cloud_cost"),
        ({"max_cloud_cost": 1}, "pd"),  # no price is set
    ],
)
def test_wrong_values_are_refused_by_name(pd: dict[str, Any], param: str) -> None:
    with device() as (server, cloud):
        body = {"messages": [user("x")], "pd": pd}
        done = http.post(f"{server.url}/v1/chat/completions", json=body)
        assert (done.status_code, done.json()["error"]["param"]) == (400, param)
        assert cloud.starts == []


def test_all_choices_of_a_request_share_its_cap() -> None:
    with device() as (server, cloud):
        done = ask(
            server,
            "chat/completions",
            {"messages": [user("x")], "n": 4, "max_tokens": 20},
            max_cloud_tokens=6,
        ).json()
        assert len(done["choices"]) == 4
        assert 1 <= cloud.made <= 6


def test_money_of_a_day_ends_for_the_cloud_and_answers_go_on() -> None:
    caps = CloudCaps(day_cost=0.001, prompt_price=1.0, answer_price=100.0)
    with device(caps=caps, account=CloudUse(None)) as (server, cloud):
        reports = [chat(server, [user(f"question {i}")])["pd"] for i in range(12)]
        prompts = sum(len(start.prompt_token_ids) for start in cloud.starts)
        assert 0 < prompts * 1e-6 + cloud.made * 1e-4 <= 0.001 + 1e-9
        assert reports[0]["cloud"]["cost"] > 0
        assert reports[-1]["cloud"] == {
            "sent": False,
            "reason": "cap",
            "words": "a cap on the cloud's tokens or cost is reached",
            "cost": 0,
        }
        assert all(report["made_by"][-1]["until"] == 4 for report in reports)


def test_a_request_may_ask_for_a_quality_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    with device() as (server, _):
        client: DeviceClient = server.device.client
        seen: list[float] = []
        session = client.session

        def watched(each: Any) -> Any:
            seen.append(each.promise.quality_floor)
            return session(each)

        monkeypatch.setattr(client, "session", watched)
        chat(server, [user("x")], quality_floor=0.3)
        chat(server, [user("x")])
        assert seen == [0.3, 1.0]


def test_a_pattern_that_takes_for_ever_does_not_stop_the_device() -> None:
    rules = LocalOnlyRules(local_only_patterns=("bad=(a+)+$",))

    async def timed(server: ApiServer) -> int:
        body = {"messages": [user("a" * 60 + "!")], "max_tokens": 2}
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            slow = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
            answers = 0
            while not slow.done():
                assert (await client.get("/health")).status_code == 200
                answers += 1
            report = slow.result().json()["choices"][0]["pd"]
            assert report["privacy"]["rule"] == "bad"
            assert "could not be tested" in report["notes"][0]
            return answers

    with device(rules=rules) as (server, cloud):
        assert asyncio.run(timed(server)) > 5
        assert cloud.starts == []


@pytest.mark.parametrize("path", ["messages", "responses"])
def test_other_forms_of_the_api_keep_to_the_rules_too(path: str) -> None:
    def send(text: str, **pd: Any) -> httpx.Response:
        said = {"messages": [user(text)], "max_tokens": 4} if path == "messages" else {}
        if path == "responses":
            said = {"input": text, "max_output_tokens": 16}
        body = {"model": "random-tiny", **said, **({"pd": pd} if pd else {})}
        done = http.post(f"{server.url}/v1/{path}", json=body, timeout=60)
        assert done.status_code == 200, done.text
        return done

    with device(rules=RULES) as (server, cloud):
        for text, pd in (
            ("patient number 5", {}),
            ("A rash.", {"label": "health"}),
            ("Nobody's.", {"local_only": True}),
            ("Nobody's.", {}),
        ):
            done = send(text, **pd)
            assert done.headers["x-pd-privacy"] == "local-only"
            assert done.json()["pd"]["privacy"]["local_only"] is True
        assert (cloud.starts, cloud.made) == ([], 0)
        assert send("A guest.").headers["x-pd-privacy"] == "cloud"
        assert len(cloud.starts) == 1


def test_a_schema_is_among_the_words_that_would_leave() -> None:
    schema = {"type": "object", "properties": {"patiént 6": {"type": "null"}}}
    asked = ChatParameters.model_validate(
        {
            "messages": [user("Fill it in.")],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema},
            },
        }
    )
    rules = LocalOnlyRules(local_only_patterns=("patients=patiént [0-9]+",))
    with device(rules=rules) as (server, _):
        judgement = server.run(judged(server.device, asked, [(1, 2)]))
    assert (judgement.by, judgement.rule) == (KeptBy.RULE, "patients")


@pytest.mark.parametrize(
    "form",
    [
        {"choice": ["yes", "patiént 6"]},
        {"regex": "patiént 6|no"},
        {"regex": r"pati\x{e9}nt\x206|no"},
        {"regex": r"pati\u00E9nt 6|no"},
        {"json": {"type": "string", "pattern": r"^pati\u00e9nt\x206$"}},
    ],
)
def test_the_texts_of_a_form_are_among_the_words_however_they_are_written(form: Any) -> None:
    asked = ChatParameters.model_validate(
        {"messages": [user("Which?")], "structured_outputs": form}
    )
    rules = LocalOnlyRules(local_only_patterns=("patients=patiént [0-9]+",))
    with device(rules=rules) as (server, _):
        judgement = server.run(judged(server.device, asked, [(1, 2)]))
    assert (judgement.by, judgement.rule) == (KeptBy.RULE, "patients")
