"""The method itself, on tensors: maps, masks, interventions, pairing. No file is written here."""
