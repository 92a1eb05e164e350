"""The report of each kind of run, the evaluation of finished runs, and the tables that commands print."""
