"""The command `qwenlab`. A command's module is imported when it runs, so that `qwenlab --help` is quick."""

from importlib import import_module

import click

# Name -> where the click command is, and its line in the help.
COMMANDS = {
    "accept": ("qwenlab.core.commands:accept", "Show the acceptance table, or judge two revisions."),
    "doctor": ("qwenlab.core.commands:doctor", "Say what the active profile needs and this machine lacks."),
    "edit": ("qwenlab.videoedit.cli:edit", "Edit a video, with or without guidance by its edges."),
    "infer": ("qwenlab.latentcot.infer_cli:infer", "Draw a picture, reflect on it, refine it."),
    "latentcot": ("qwenlab.latentcot.cli:latentcot", "Train latent reasoning, or compute its teacher states."),
    "plan": ("qwenlab.tomas.cli:plan", "Choose a tool and its resources for a task in words."),
    "segment": ("qwenlab.thinkseg.segment_cli:segment", "Segment in videos what phrases name."),
    "think": ("qwenlab.thinkseg.think_cli:think", "Think about a video, summarise, and segment what matters."),
}


class LazyGroup(click.Group):
    """A group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return getattr(import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup)
@click.version_option(package_name="qwenlab")
def main() -> None:
    """Five Qwen research systems; every claim is a controlled experiment with a verdict."""


if __name__ == "__main__":
    main()
