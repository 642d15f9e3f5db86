"""`python -m ayeaye`, where the program is not on the path."""

from ayeaye.cli import main

main()
