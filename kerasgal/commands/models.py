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
        size = f"{entry['bytes'] / 1e6:.1f} MB" if entry["bytes"] >= 1e5 else f"{entry['bytes'] / 1e3:.0f} kB"
        click.echo(f"{name}  ({entry['app']}, {size}, {entry['licence']})\n"
                   f"  {entry['summary']}\n  on unseen data: {networks.measured(entry)}")
