"""The command line: one command per stage, and the operations around them."""

from ayeaye.core.environment import prefer_installed


def main() -> None:
    """Run the command line, with modules from where they are installed."""
    prefer_installed()
    from ayeaye.cli import program

    program.main()
