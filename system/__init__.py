"""What every package needs from the machine: errors, files, command line, console, memory."""
