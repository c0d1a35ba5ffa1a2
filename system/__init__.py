"""The ground floor: what every package needs of the machine, one question a file."""
