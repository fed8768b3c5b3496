"""`amc-latency`, and `python -m amc_latency`: the command line, which a signal ends cleanly from the first moment."""

from amc_latency.stopping import stop_by_signals


def main() -> None:
    """Run a command; see `amc_latency.cli.main`."""
    # Before the imports, which take a while.
    stop_by_signals()
    from amc_latency.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
