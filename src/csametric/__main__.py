"""`python -m csametric`, so that `torchrun -m csametric` works too."""

from csametric.cli.app import main

main()
