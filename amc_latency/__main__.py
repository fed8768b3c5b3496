"""`amc-latency`, and `python -m amc_latency`: the command line, which a signal ends cleanly from the first moment."""

from amc_latency.cli.stopping import Stopped, stop_by_signals


def main() -> None:
    """Run a command; see `amc_latency.cli.main.main`."""
    # Before the imports, which take a while.
    stop = stop_by_signals()
    try:
        from amc_latency.cli.main import main as run_command

        run_command()
    except BaseException:
        # C code that a signal's exception met may have made another of it.
        if stop.number is not None:
            raise Stopped(stop.number) from None
        raise


if __name__ == "__main__":
    main()
