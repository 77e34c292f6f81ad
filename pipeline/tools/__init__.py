"""The work of the commands that are not stages: inspect, explain, predict, export, doctor, download."""
