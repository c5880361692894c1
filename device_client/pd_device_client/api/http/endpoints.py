"""The endpoints of an application, and the OpenAPI document that describes them."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["Endpoints"]

_Handler = Callable[[Request], Awaitable[Response]]

_SCHEMAS = "#/components/schemas/{model}"


class Endpoints:
    """Collects routes and their OpenAPI descriptions.

    Attributes:
        routes: all routes, in the order in which they are tried.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._paths: dict[str, dict[str, Any]] = {}
        self._bodies: list[type[BaseModel]] = []

    def add(
        self, method: str, path: str, body: type[BaseModel] | None = None, *, flag: str = ""
    ) -> Callable[[_Handler], _Handler]:
        """Make the decorated function answer a method of a path.

        Args:
            method: such as "POST"; "GET" includes "HEAD".
            path: as Starlette writes it.
            body: the model of the request's body, if it has one.
            flag: the name of a boolean query parameter, if there is one.
        """

        def added(handler: _Handler) -> _Handler:
            route = Route(path, handler, methods=[method])
            self.routes.append(route)
            told = self._paths.setdefault(route.path_format, {})
            told[method.lower()] = self._operation(route, method.lower(), body, flag)
            return handler

        return added

    def document(self, title: str, version: str) -> dict[str, Any]:
        """Return the OpenAPI document of the added endpoints."""
        _, schemas = models_json_schema(
            [(kind, "validation") for kind in self._bodies], ref_template=_SCHEMAS
        )
        return {
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "paths": self._paths,
            "components": {"schemas": schemas["$defs"]},
        }

    def _operation(
        self, route: Route, method: str, body: type[BaseModel] | None, flag: str
    ) -> dict[str, Any]:
        operation: dict[str, Any] = {
            "summary": route.name.replace("_", " ").title(),
            "operationId": re.sub(r"\W", "_", f"{route.name}{route.path_format}_{method}"),
            "responses": {"200": {"description": "Successful Response", "content": _json({})}},
        }
        if route.endpoint.__doc__:
            operation["description"] = route.endpoint.__doc__
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.param_convertors
        ]
        if flag:
            schema = {"type": "boolean", "default": False}
            parameters.append({"name": flag, "in": "query", "required": False, "schema": schema})
        if parameters:
            operation["parameters"] = parameters
        if body is not None:
            self._bodies.append(body)
            schema = {"$ref": _SCHEMAS.format(model=body.__name__)}
            operation["requestBody"] = {"required": True, "content": _json(schema)}
        return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
