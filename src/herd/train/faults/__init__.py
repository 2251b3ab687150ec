"""What breaks in a run of many processes: found, named, written down and survived. For users: docs/faults.md."""
