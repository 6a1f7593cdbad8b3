"""The subcommands of `ovs3d`, one module each: `run(options)` does the work and returns the exit code.

`cli` imports a module only when its command is called, so that `ovs3d --help` loads nothing heavy.
"""
