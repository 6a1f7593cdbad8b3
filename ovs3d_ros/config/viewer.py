"""Parameters of the web viewer."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import MACHINE, SESSION, leaf


@dataclass(frozen=True, slots=True)
class ViewerConfig:
    """Web viewer: the map in a browser."""

    port: int = leaf(
        0, MACHINE, "Port on which the node serves the viewer. 0: it serves none.", low=0, high=65535
    )
    host: str = leaf(
        "127.0.0.1",
        MACHINE,
        "Address that the viewer listens to. The default is for browsers of this computer alone. 0.0.0.0 "
        "lets everybody in the network look and ask; there is no password.",
    )
    max_splats: int = leaf(
        1_000_000,
        SESSION,
        "Largest number of Gaussians that a browser gets; larger maps are thinned evenly. Lower it for slow "
        "graphics or networks.",
        low=1000,
        high=20_000_000,
    )
