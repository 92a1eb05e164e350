"""The command: parse, call, print; one file per command group. Nothing heavy is imported before a command runs."""
