"""Whether unlike sides really give one text: every handoff of an answer, one after another."""
