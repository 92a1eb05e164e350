"""Reports of each kind of run, evaluations of finished runs, and the tables that commands print."""
