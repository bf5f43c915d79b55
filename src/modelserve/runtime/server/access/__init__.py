"""Who may do what: keys, tokens, rates, and the record of it."""
