"""The web viewer: a map in the browser, live or from a file. It needs viser, see the extra `view`.

Importing the package loads nothing, and `stage` and `preview` do without torch, which takes seconds.
"""
