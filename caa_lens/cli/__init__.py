"""The command `caa-lens`: options in, the same functions as in Python, tables and files out.

Nothing imports this. It knows options, tables and exit codes, and computes nothing itself. A module for each group of
commands is in `commands`; whatever is heavy is imported when a command runs.
"""
