"""The command `kerasgal models`."""

import click

from kerasgal.commands.base import Command


@click.command(cls=Command)
@click.argument("name", required=False)
def models(name):
    """List the trained networks that have a name, or show the card of the one called NAME.

    A name stands wherever an app's command takes a RUN: `kerasgal protohalo predict NAME box.h5`.
    """
    from kerasgal import networks

    if name:
        click.echo(networks.card(name))
        return
    found = networks.registry()
    if not found:
        click.echo("no network comes with this installation")
    for name, entry in found.items():
        click.echo(f"{name}  ({entry['app']}, {entry['bytes'] / 1e6:.1f} MB, {entry['licence']})\n"
                   f"  {entry['summary']}\n  on unseen data: {networks.measured(entry)}")
