"""The colour encoder in a process that writes down every file it opens, to AUDIT_LOG with its process id.

Selected by import string, `clip.model:=helpers.audited_encoder:AuditedEncoder`.
"""

from __future__ import annotations

import os
import sys

from helpers.color_encoder import ColorEncoder


class AuditedEncoder(ColorEncoder):
    def __init__(self, config, device):
        super().__init__(config, device)
        if "pytest" in sys.modules:  # the tests load the node's map themselves, and a hook stays for good
            return
        log = os.open(f"{os.environ['AUDIT_LOG']}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def note(event: str, arguments: tuple) -> None:
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "os.link"):
                os.write(log, f"{event} {arguments[0]}\n".encode("utf-8", "replace"))

        sys.addaudithook(note)
