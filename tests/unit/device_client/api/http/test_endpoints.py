"""What the OpenAPI document says of endpoints."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from pd_device_client.api.http.endpoints import Endpoints


class _Part(BaseModel):
    word: str


class _Body(BaseModel):
    parts: list[_Part]


def test_the_document_has_each_endpoint_with_its_body_and_parameters() -> None:
    endpoints = Endpoints()

    @endpoints.add("POST", "/things", _Body)
    async def make_thing(request: Request) -> Response:
        """Make one."""
        return Response()

    @endpoints.add("GET", "/things/{name:path}", flag="fresh")
    async def thing(request: Request) -> Response:
        return Response()

    document = endpoints.document("a title", "1.2")
    assert document["info"] == {"title": "a title", "version": "1.2"}
    assert document["components"]["schemas"].keys() == {"_Body", "_Part"}
    made = document["paths"]["/things"]["post"]
    assert (made["summary"], made["description"]) == ("Make Thing", "Make one.")
    assert made["operationId"] == "make_thing_things_post"
    content = made["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/_Body"}
    got = document["paths"]["/things/{name}"]["get"]
    assert "requestBody" not in got
    assert [(p["name"], p["in"], p["required"]) for p in got["parameters"]] == [
        ("name", "path", True),
        ("fresh", "query", False),
    ]
    assert [route.path for route in endpoints.routes] == ["/things", "/things/{name:path}"]
