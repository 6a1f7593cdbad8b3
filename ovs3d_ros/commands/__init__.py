"""The subcommands of `ovs3d`, one module each: `run(options)` does the work and returns the exit code.

They are imported when they are called, so that `ovs3d --help` loads nothing heavy.
"""
