"""Responses of services that fail: an error code and one line, never an exception."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from ovs3d_ros.types import MapSnapshot, UserError
from ovs3d_ros.worker import MappingWorker

log = logging.getLogger(__name__)


class NoMap(Exception):
    """There is no map to search or to save."""


class OperationFailed(Exception):
    """The machine refused, for example because the disk is full or not writable."""


def offer_service(
    node: Node, service_type: type, name: str, fill: Callable[[Any, Any], None], group: CallbackGroup
) -> None:
    """Offers the service `~/name` in a callback group; its responses are those of `fill_response`."""
    callback = functools.partial(fill_response, fill)
    node.create_service(service_type, f"~/{name}", callback, callback_group=group)


def fill_response(fill: Callable[[Any, Any], None], request: Any, response: Any) -> Any:
    """Returns the response that `fill` fills, or on an exception a new one with error code and message.

    Args:
        fill: takes request and response.
        request: of a service of ovs3d_interfaces.
        response: has `error_code`, `error_msg`, the constants OK and BAD_REQUEST, and a constant for each
            other error that `fill` can raise.
    """
    response_type = type(response)
    try:
        fill(request, response)
        return response
    except UserError as error:
        return _make_failure(response_type, "BAD_REQUEST", str(error))
    except NoMap as error:
        return _make_failure(response_type, "NO_MAP", str(error))
    except TimeoutError as error:
        return _make_failure(response_type, "TIMEOUT", f"{error}; try again later")
    except OperationFailed as error:
        return _make_failure(response_type, "FAILED", str(error))
    except Exception as error:  # reported to the client and logged; the node and its map must survive
        return _report_exception(response_type, error)


def _report_exception(response_type: type, error: Exception) -> Any:
    """The response after an unexpected exception: too little memory, or a bug."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        message = "out of memory; send fewer prompts at once or lower map.max_gaussians"
        return _make_failure(response_type, "OUT_OF_MEMORY", message)
    log.exception("a service failed")
    message = f"failed ({type(error).__name__}: {error}); see the node's log"
    return _make_failure(
        response_type, "FAILED" if hasattr(response_type, "FAILED") else "BAD_REQUEST", message
    )


def _make_failure(response_type: type, code: str, message: str) -> Any:
    return response_type(error_code=getattr(response_type, code), error_msg=" ".join(message.split()))


def require_map(worker: MappingWorker) -> MapSnapshot:
    """The newest snapshot.

    Raises:
        NoMap: there is no snapshot, or it is empty.
    """
    snapshot = worker.snapshot
    if snapshot is None or snapshot.num_gaussians == 0:
        raise NoMap(f"no map yet: {_explain_emptiness(worker)}")
    return snapshot


def require_features(worker: MappingWorker) -> MapSnapshot:
    """The newest snapshot, which can be searched by text.

    Raises:
        NoMap: there is no snapshot, or it has no language features.
    """
    snapshot = require_map(worker)
    if snapshot.codec is None:
        raise NoMap(f"no language features yet: {_explain_emptiness(worker)}")
    return snapshot


def _explain_emptiness(worker: MappingWorker) -> str:
    """What became of the frames, and what is odd about them."""
    stats = worker.stats()
    if not stats["frames_received"]:
        return "no usable frame has arrived; /diagnostics names the missing input"
    outcome = f"{stats['frames_received']} frames arrived and gave {stats['keyframes']} keyframes, but no map"
    reason = stats["depth_doubt"] or stats["last_rejection"]
    return f"{outcome}: {reason}" if reason else f"{outcome}; /diagnostics tells what became of them"
