"""The commands of `caa-lens`, a module for each group. Whatever is heavy is imported when a command runs."""
