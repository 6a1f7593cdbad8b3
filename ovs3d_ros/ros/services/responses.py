"""What a service answers when it cannot do what it was asked: never an exception, always a code and one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ovs3d_ros.types import MapSnapshot, UserError
from ovs3d_ros.worker import MappingWorker

log = logging.getLogger(__name__)


class NoMap(Exception):
    """There is nothing to ask or to save yet."""


class Failed(Exception):
    """The machine could not do it: disk full, not writable."""


def answer(fill: Callable[[Any, Any], None], request: Any, response: Any) -> Any:
    """Lets `fill` fill the response; errors become their code and message in a fresh one.

    Args:
        fill: takes request and response.
        request: of a service of ovs3d_interfaces.
        response: has `error_code`, `error_msg` and the constants OK and BAD_REQUEST, and those of the errors that
            `fill` can meet.
    """
    kind = type(response)
    try:
        fill(request, response)
        return response
    except UserError as error:
        return _failure(kind, "BAD_REQUEST", str(error))
    except NoMap as error:
        return _failure(kind, "NO_MAP", str(error))
    except TimeoutError as error:
        return _failure(kind, "TIMEOUT", f"{error}; try again later")
    except Failed as error:
        return _failure(kind, "FAILED", str(error))
    except Exception as error:  # reported to the client and logged: the map must survive
        return _fault(kind, error)


def _fault(kind: type, error: Exception) -> Any:
    """The answer when the service broke: memory, or a bug, which must not take the map down with it."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        message = "out of memory; ask for less at once or lower map.max_gaussians"
        return _failure(kind, "OUT_OF_MEMORY", message)
    log.exception("a service failed")
    message = f"failed ({type(error).__name__}: {error}); see the node's log"
    return _failure(kind, "FAILED" if hasattr(kind, "FAILED") else "BAD_REQUEST", message)


def _failure(kind: type, code: str, message: str) -> Any:
    return kind(error_code=getattr(kind, code), error_msg=" ".join(message.split()))


def need_map(worker: MappingWorker, to_ask: bool = True) -> MapSnapshot:
    """The newest snapshot.

    Args:
        worker: publishes it.
        to_ask: it must hold language features.

    Raises:
        NoMap: there is none, or nothing is in it.
    """
    snapshot = worker.snapshot
    if snapshot is None or snapshot.num_gaussians == 0 or (to_ask and snapshot.codec is None):
        raise NoMap("no map yet: no usable frame has arrived; /diagnostics says which input is missing")
    return snapshot
