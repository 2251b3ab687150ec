"""What the commands of `herd` do; arguments/ knows what each can be told. One file a command."""
