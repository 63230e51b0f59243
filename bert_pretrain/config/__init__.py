"""Every setting, once: its name, type, default, unit and help.

Frozen dataclasses: cli.py turns their fields into flags of the same name, and docs/flags.md is generated from them.
`check()` raises ValueError for invalid values and changes nothing. Standard library only, so that every other module
may import it.
"""
