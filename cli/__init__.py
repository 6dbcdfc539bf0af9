"""The `tpt` command: one file a subcommand; they parse, call, print."""
