"""The command: parse, call, print; one file a command group. Nothing heavy is imported before a command runs."""
