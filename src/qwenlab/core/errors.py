"""The one error for bad input: a clear sentence, exit code 2, no traceback."""

import click


class UserError(click.ClickException):
    """Bad input. The message names the file or parameter, the value, and what is expected."""

    exit_code = 2

    def show(self, file=None) -> None:
        click.echo(f"Error: {self.format_message()}", err=True, file=file)
