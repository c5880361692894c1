"""What goes wrong between us and a hub, as our errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Documented there, though not marked as exported.
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from pd_core.errors import HubUnavailable, ModelError
from pd_core.store.model_store import PulledName

__all__ = ["our_errors", "raise_for_status"]

_TELLING = ("X-Error-Code", "X-Error-Message")


def raise_for_status(response: httpx2.Response) -> None:
    """Raise the library's error for an answer that is one.

    Its body is not read: it may be endless, and nothing in it is used.
    """
    if response.is_error:
        told = {name: response.headers[name] for name in _TELLING if name in response.headers}
        hf_raise_for_status(
            httpx2.Response(response.status_code, headers=told, json={}, request=response.request)
        )


@contextmanager
def our_errors(endpoint: str, name: PulledName) -> Iterator[None]:
    """Raise what goes wrong with a hub or the disk as our errors.

    Args:
        endpoint: the hub's address.
        name: the model that is asked for.
    """
    try:
        yield
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its terms on {endpoint}/{name.repo}, then give a "
            "token of that account (--token-file, or the variable HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name.repo} has no revision {name.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{endpoint} has no model {name.repo}, or it is private and needs a token "
            "(--token-file, or the variable HF_TOKEN)"
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{name.repo} cannot be a model's name: no hub allows it") from error
    except OfflineModeIsEnabled as error:
        raise HubUnavailable(
            f"{name} cannot be pulled while the variable HF_HUB_OFFLINE says to stay offline"
        ) from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise ModelError(
                f"{endpoint} refuses the token for {name.repo} (status {code}); give "
                "another one (--token-file, or the variable HF_TOKEN)"
            ) from error
        raise HubUnavailable(
            f"{endpoint} answered with status {code} for {name}; pull again later, what "
            "has arrived is kept"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise HubUnavailable(
            f"{endpoint} cannot be reached for {name} ({reason}); check the network and "
            "pull again, what has arrived is kept"
        ) from error
    except OSError as error:  # last, since some of the library's errors are OSErrors
        raise ModelError(
            f"{name} cannot be written ({error.strerror}); make room and pull again, what has "
            "arrived is kept"
        ) from error
