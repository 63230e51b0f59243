"""Every setting, once: its name, type, default, unit and help.

Frozen dataclasses; `cli.py` turns their fields into flags of the same name and the README's table is made from
them. `check()` only checks. What follows from other fields is a property. Nothing mutates a configuration: use
`dataclasses.replace`. Standard library only, so that every other module may import it.
"""
