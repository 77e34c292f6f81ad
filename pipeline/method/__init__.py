"""The method itself, on tensors: maps, masks, interventions, pairing; no file is written here."""
