"""The commands that no system owns: `qwenlab accept` and `qwenlab doctor`."""

import click


@click.command()
@click.argument("system", required=False)
@click.option("--revs", nargs=2, metavar="A B", help="Judge revision or experiment B against A, by what they selected.")
def accept(system: str | None, revs: tuple[str, str] | None) -> None:
    """Print the acceptance table of all systems, or of one SYSTEM.

    The exit code is 1 if an accept rule fails or a system has no metrics yet, and 2 for bad input.
    """
    from qwenlab.core.accept import accepted, gate, print_table

    if not revs:
        raise SystemExit(0 if gate(only=system) else 1)
    if not system:
        raise click.UsageError("--revs compares one system: name it, as in `qwenlab accept videoedit --revs off on`.")
    from qwenlab.core.accept_revs import judge_revs

    results, skipped = judge_revs(system, *revs)
    print_table(results)
    for sentence in skipped:
        click.echo(sentence)
    raise SystemExit(0 if accepted(results) else 1)


@click.command()
def doctor() -> None:
    """Say what the active profile needs and this machine lacks; exit code 1 if something needed is missing."""
    from qwenlab.core.doctor import diagnose, print_checks

    checks = diagnose()
    print_checks(checks)
    raise SystemExit(1 if any(check.state == "missing" for check in checks) else 0)
