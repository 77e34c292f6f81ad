"""The method itself, on tensors: maps, masks, interventions, pairing; no file is read or written here."""
