"""The command `kerasgal doctor`."""

import click

from kerasgal.commands.base import Command, passing, print_table


@click.command(cls=Command)
@click.pass_context
def doctor(context):
    """Show what kerasgal runs on, and what is wrong with it: versions, extras, devices, memory, precision, caches.

    Exits with code 1, and one line for each thing that is wrong, if anything is. It says, too, whether mixed precision
    trains rightly on this machine.
    """
    from kerasgal.doctor import examine

    with passing("looking ..."):  # the backend is imported, which takes seconds
        found = examine()
    print_table("kerasgal's installation", found.rows)
    for problem in found.problems:
        click.echo(f"Error: {problem}", err=True)
    if not found.sound:
        context.exit(1)
