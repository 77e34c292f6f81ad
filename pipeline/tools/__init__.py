"""The commands that are no stages: inspect, explain, predict, export, doctor's estimates, download."""
