"""The gate: the table of all systems; exit code 1 if an accept rule fails. Run: python -m stages.accept"""

import click


@click.command()
def main() -> None:
    """Judge every system from its metrics files."""
    from qwenlab.core.accept import gate

    raise SystemExit(0 if gate() else 1)


if __name__ == "__main__":
    main()
