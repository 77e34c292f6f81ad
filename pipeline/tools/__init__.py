"""What the commands do that are no stages: inspect, explain, predict, export, doctor, download."""
