"""What each command of `herd` can be told, and the call that its words become. Nothing heavy at import."""
