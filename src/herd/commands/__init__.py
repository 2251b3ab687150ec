"""What the commands of `herd` do; cli.py only knows their names. One file a command."""
