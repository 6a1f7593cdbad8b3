"""`ovs3d export`: writes a map as the standard 3DGS PLY, or as .splat or .spz for web viewers."""

from __future__ import annotations

import argparse

from ovs3d_ros.commands import common
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.io.splat import write_splat
from ovs3d_ros.io.spz import write_spz
from ovs3d_ros.map_file import load_map
from ovs3d_ros.map_frame import params_to_world, without_origin

# The suffixes are those of `inputs.EXPORT_SUFFIXES`.
WRITERS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz}


def run(options: argparse.Namespace) -> int:
    """Writes the file in the format of its suffix; loads no model.

    Raises:
        UserError: the map cannot be read, or the output cannot be written.
    """
    output = common.check_output_file(options.output, options.map)
    params, snapshot = load_map(options.map)
    place = without_origin(snapshot.frame) if options.local else snapshot.frame
    params = params_to_world(params, place)
    WRITERS[output.suffix.lower()](output, params)
    common.print_message(options, f"{output}: {params['means'].shape[0]} Gaussians")
    return 0
